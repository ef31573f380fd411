"""Errors of one measurement that must not cost the others: each becomes a line."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

Tell = Callable[[str], None]


class Failures:
    """Collects what went wrong, in words.

    Args:
        tell: given the end of each traceback.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.lines: list[str] = []

    @contextmanager
    def noted(self, what: str) -> Iterator[None]:
        """Turn an error of the block into a line, and hand cached GPU memory back: it may have run out."""
        try:
            yield
        except Exception as error:  # whatever it is, the other measurements are worth their time
            text = str(error).strip().splitlines() or ["no message"]
            self.lines.append(f"{what}: {type(error).__name__}: {text[0]}")
            self._tell("".join(traceback.format_exception(error, limit=-2)).rstrip())
            torch.cuda.empty_cache()
