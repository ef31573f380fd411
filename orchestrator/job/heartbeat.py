"""`heartbeat.json`: a sign of life that says how far the job is, from the two files the job grows."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.clock import Clock
from orchestrator.paths import AttemptPaths
from trainer_ext.records import Heartbeat, write_atomic


class MetricsTail:
    """The steps in `metrics.jsonl`, reading only what is new. A line without its newline is not there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.last: int | None = None
        self.seen: set[int] = set()

    def advance(self) -> None:
        """Read the complete lines that were added. A file that shrank was begun anew (verl truncates its own)."""
        try:
            if self._path.stat().st_size < self._offset:
                self._offset = 0
            with self._path.open("rb") as file:
                file.seek(self._offset)
                complete, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        self._offset += len(complete) + len(newline)
        for step in map(_step, complete.splitlines()):
            if step is not None:
                self.last = step
                self.seen.add(step)


def _step(line: bytes) -> int | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return step if isinstance(step, int) else None


def steps_seen(path: Path) -> list[int]:
    """All steps of a metrics file, distinct and ascending."""
    tail = MetricsTail(path)
    tail.advance()
    return sorted(tail.seen)


class HeartbeatWriter:
    """Rewrites `heartbeat.json` each time it is called."""

    def __init__(self, paths: AttemptPaths, clock: Clock) -> None:
        self._paths, self._clock = paths, clock
        self._metrics = MetricsTail(paths.metrics)
        self._console_bytes = 0
        self._last_output_at: float | None = None
        self.phase = "prepare"
        self.child_pid: int | None = None

    def __call__(self) -> None:
        self._metrics.advance()
        now = self._clock.now()
        size = self._paths.console.stat().st_size if self._paths.console.exists() else 0
        if size != self._console_bytes:  # our clock, not the file server's
            self._console_bytes, self._last_output_at = size, now
        beat = Heartbeat(
            time=now,
            phase=self.phase,
            step=self._metrics.last,
            console_bytes=size,
            last_output_at=self._last_output_at,
            child_pid=self.child_pid,
        )
        write_atomic(self._paths.heartbeat, beat.to_json(), durable=False)
