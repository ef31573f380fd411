"""Optuna's journal file, written in batches that are there as a whole or not at all.

One step of a search (create a trial, its parameters, its attributes) is several lines of the journal. They are gathered and
appended by one write and one sync, each line with its place in the batch (a key that Optuna does not read). A process that
is killed while it writes may leave a part of a batch behind: `repair` cuts it off, so that the step never happened.

Another program, such as optuna-dashboard, may append to the same file meanwhile: a batch holds the file's lock from its
first line to its last.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileSymlinkLock

from orchestrator.errors import UsageError

STALE_LOCK_S = 3
"""A lock that nothing is written under for this long is that of a process which was killed."""
_BATCH = "batch"
"""[place, lines] of a line in its batch."""


class BatchedJournal(BaseJournalBackend):  # type: ignore[misc]  # optuna's types are not followed
    """A backend of Optuna's `JournalStorage` on one file. Open it once the sweep's lock is held."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = JournalFileSymlinkLock(str(path), grace_period=STALE_LOCK_S)
        self._held = False
        with self._holding():
            repair(path)
            self._file = JournalFileBackend(str(path))
        self._pending: list[dict[str, Any]] | None = None
        self._lines = 0
        """Of the file; known while a batch is open."""

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Everything that is written inside is appended together at the end; after an exception, nothing is.

        After an exception the storage holds what the file does not: open another one.
        """
        with self._holding():
            self._lines += sum(1 for _ in self._file.read_logs(self._lines))
            self._pending = []
            try:
                yield
                self._append(self._pending)
            finally:
                self._pending = None

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        if self._pending is None:
            yield from self._file.read_logs(log_number_from)
            return
        if log_number_from < self._lines:
            yield from self._file.read_logs(log_number_from)
        yield from self._pending[max(0, log_number_from - self._lines) :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if self._pending is not None:
            self._pending += json.loads(json.dumps(logs))  # as they will be read
            return
        with self._holding():
            self._append(logs)

    def _append(self, logs: Sequence[Mapping[str, Any]]) -> None:
        if not logs:
            return
        lines = [
            json.dumps({**log, _BATCH: [place, len(logs)]}, separators=(",", ":")) for place, log in enumerate(logs, 1)
        ]
        with self.path.open("ab") as file:
            file.write(("\n".join(lines) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        if self._held:
            yield
            return
        self._lock.acquire()
        self._held = True
        try:
            yield
        finally:
            self._held = False
            with contextlib.suppress(RuntimeError):  # somebody took it for stale
                self._lock.release()


def repair(path: Path) -> int:
    """Cut off what a killed process left of a line or a batch at the end of the file; returns the bytes cut.

    Raises:
        UsageError: another line is none of a journal's.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.splitlines(keepends=True)
    _require_lines(path, lines)
    kept = len(lines)
    if lines and (place := _place(lines[-1])) is not None and place[0] < place[1]:
        kept -= min(place[0], kept)
    end = sum(len(line) for line in lines[:kept])
    if end < len(data):
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())
    return len(data) - end


def _require_lines(path: Path, lines: Sequence[bytes]) -> None:
    for number, line in enumerate(lines, 1):
        try:
            is_entry = isinstance(json.loads(line), dict)
        except ValueError:  # no JSON, or no text
            is_entry = False
        if not is_entry:
            raise UsageError(
                f"{path}:{number}: no line of a search's journal; put the file back, or search anew under another name"
            )


def _place(line: bytes) -> tuple[int, int] | None:
    try:
        place, lines = json.loads(line)[_BATCH]
    except (ValueError, TypeError, KeyError):
        return None
    return int(place), int(lines)
