"""Follows Python tracebacks through a console in which many processes write at once.

A traceback is many lines, and only the last one says what happened. Ray and torchrun put the process in front of each
line, so a traceback is followed by what stands before its first line: other processes' lines in between do not end it.
Where a remote traceback is quoted inside a local one (`RayTaskError(ValueError): ray::...`), the innermost exception counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

HEADER = "Traceback (most recent call last):"
MAX_LINES = 3000
"""A traceback without an end after so many lines of the log is given up."""
MAX_OPEN = 64

_FRAME = re.compile(r'^\s+File "([^"]+)", line (\d+), in (.+)')
_SHIFTED_FRAME = re.compile(r'^(.*?)  File "[^"]+", line \d+, in ')
# Python prints the module of every exception that is not built in; `Epoch: 3` and `INFO: ...` are not exceptions
_BUILT_IN = r"(?:[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning|Iteration|Group)|Exception)"
_EXCEPTION = re.compile(rf"^(?:(?:[A-Za-z_]\w*\.)+[A-Z]\w*|{_BUILT_IN})(?:\([\w.]+\))?(?::(?=\s|$)|$)")
_PERHAPS_EXCEPTION = re.compile(r"^[A-Z]\w*(?::(?=\s|$)|$)")
"""A class of the job's own main module stands without its module: `SyntheticFailure: ...`, but so does `Epoch: 3`."""
_QUOTES_REMOTE = re.compile(r"^ray\.exceptions\.\w+(?:\(\w+\))?: (?:The actor died because of .{0,80}?, )?ray::")
_CLOCK = re.compile(r"\d\d:\d\d")
_DIGITS = re.compile(r"\d")


@dataclass
class Traceback:
    """One traceback that was seen."""

    line: int
    """1-based line of the exception itself or, where that never came, of the header."""
    text: str
    where: str | None = None
    """Innermost frame: `trainer.py:120 in fit`."""
    complete: bool = False
    """The exception was found, and it is the line that was fed last."""
    prefix: str = ""
    """What stands in front of its lines: Ray's process, torchrun's rank, a time stamp."""


@dataclass
class _Open:
    prefix: str
    first_line: int
    found: Traceback


class TracebackFollower:
    """Feed it every line while `is_open`, and at least every line with `HEADER`."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    @property
    def is_open(self) -> bool:
        return bool(self._open)

    def begin(self, line: int, text: str) -> list[Traceback]:
        """A line that contains `HEADER`. Returns the tracebacks that it ends."""
        prefix = text[: text.index(HEADER)]
        key = _shape(prefix)
        ended = [self._open.pop(key).found] if key in self._open else []
        if len(self._open) < MAX_OPEN:
            self._open[key] = _Open(prefix, line, Traceback(line, HEADER, prefix=prefix))
        return ended

    def feed(self, line: int, text: str) -> list[Traceback]:
        """Any other line. Returns the tracebacks that it ends."""
        ended = []
        self._begins_below(text)
        for key, traceback in list(self._open.items()):
            if _shape(text[: len(traceback.prefix)]) == key:
                _advance(traceback, line, text[len(traceback.prefix) :])
            if traceback.found.complete or line - traceback.first_line > MAX_LINES:
                del self._open[key]
                ended.append(traceback.found)
        return ended

    def _begins_below(self, text: str) -> None:
        """A first frame with less in front of it than its header belongs to that header all the same.

        torch hands on the traceback of a worker as `Original Traceback ...`, others log one behind a word of their own.
        """
        found = _SHIFTED_FRAME.match(text)
        if found is None or (lead := _shape(found[1])) in self._open:
            return
        for key, traceback in reversed(list(self._open.items())):
            if traceback.found.where is None and (traceback.prefix.startswith(found[1]) or key.startswith(lead)):
                del self._open[key]
                traceback.prefix = found[1]
                self._open[lead] = traceback
                return

    def quotes(self, text: str) -> bool:
        """Whether a line is source code that an open traceback shows; what it says did not happen there."""
        return any(
            _shape(text[: len(traceback.prefix)]) == key and text[len(traceback.prefix) :].startswith("    ")
            for key, traceback in self._open.items()
        )

    def close(self) -> list[Traceback]:
        """The log is over."""
        ended = [traceback.found for traceback in self._open.values()]
        self._open.clear()
        return ended


def _advance(traceback: _Open, line: int, text: str) -> None:
    if frame := _FRAME.match(text):
        path, number, function = frame.groups()
        traceback.found.where = f"{path.rsplit('/', 1)[-1]}:{number} in {function}"
    elif _EXCEPTION.match(text):
        traceback.found.line, traceback.found.text = line, text
        traceback.found.complete = _QUOTES_REMOTE.match(text) is None
    elif traceback.found.text == HEADER and traceback.found.where and _PERHAPS_EXCEPTION.match(text):
        traceback.found.line, traceback.found.text = line, text  # it counts unless something surer follows


def _shape(prefix: str) -> str:
    """Time stamps differ from line to line; everything else in front of a process's lines stays."""
    return _DIGITS.sub("0", prefix) if _CLOCK.search(prefix) else prefix
