"""Another step in the place of an optimizer's own, for as long as a block lasts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def stepping_by(optimizer: torch.optim.Optimizer, step: Callable[..., Any]) -> Iterator[None]:
    """While open, `optimizer.step` is `step`, with the marks on it that torch's schedulers look for."""
    plain = optimizer.step
    optimizer.step = functools.wraps(plain)(step)  # type: ignore[method-assign]
    try:
        yield
    finally:
        optimizer.step = plain  # type: ignore[method-assign]
