"""Puts own functions in front of an engine's methods, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(engine: Any, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """While open, `engine.name` is `method`; afterwards it is again what it was. May be nested."""
    before = vars(engine).get(name)
    setattr(engine, name, method)
    try:
        yield
    finally:
        if before is None:
            delattr(engine, name)
        else:
            setattr(engine, name, before)
