"""New lines of a file that grows, a bounded part at a time: for whoever looks every second at what a week of work writes."""

from __future__ import annotations

from pathlib import Path

MOST = 1 << 20
"""Bytes read at one look."""


class Tail:
    """Reads on from where the last look ended.

    A file with more news than `most` bytes is read from there before its end: what lies in between is never seen. One that
    became shorter was begun anew, and is read as such.
    """

    def __init__(self, path: Path, most: int = MOST) -> None:
        self._path, self._most = path, most
        self._offset = 0

    def new_lines(self) -> list[bytes]:
        """Whole lines since the last look, without their ends; none from a file that is not there or cannot be read now."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                start = 0 if size < self._offset else self._offset
                skipped = size - start > self._most
                file.seek(size - self._most if skipped else start)
                data = file.read(self._most)
                end = file.tell()
        except OSError:
            return []
        lines = data.split(b"\n")
        self._offset = end - len(lines.pop())
        return lines[1:] if skipped else lines
