"""Samples that verl prints of what the model read and wrote: `[prompt] ...`, `[response] ...`, then `[ground_truth] ...`.

A model that is trained on code writes tracebacks, out-of-memory errors and everything else that a log is searched for.
What stands between the two marks was printed by nobody's failure.
"""

from __future__ import annotations

import re

BEGINS, ENDS = "[prompt] ", "[ground_truth]"
MAX_LINES = 5_000
"""A sample without an end is given up after so many lines of the log."""

_OTHER_PROCESS = re.compile(r"\(\w+ pid=\d+|\[rank\d+\]:")


class SampleFollower:
    """Feed it every line while `is_open`, and at least every line with `BEGINS`."""

    def __init__(self) -> None:
        self._since: dict[str, int] = {}
        """What stands in front of the lines of a sample that is open -> the line that began it."""

    @property
    def is_open(self) -> bool:
        return bool(self._since)

    def covers(self, line: int, text: str) -> bool:
        """Whether a line is part of a sample, which the process that prints it began here or before."""
        if BEGINS in text:
            self._since[text[: text.index(BEGINS)]] = line
        if not self._since:
            return False
        if ENDS in text:
            return self._since.pop(text[: text.index(ENDS)], None) is not None
        self._since = {prefix: since for prefix, since in self._since.items() if line - since <= MAX_LINES}
        return any(text.startswith(prefix) if prefix else _OTHER_PROCESS.match(text) is None for prefix in self._since)
