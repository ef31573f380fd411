"""`heartbeat.json`: a sign of life that says how far the job is, from the two files the job grows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from orchestrator.clock import Clock
from orchestrator.job.hang import Phase, Signs
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


class StepTimes:
    """How long the job's steps take, by when they were seen to end. Seconds on a clock that never goes back."""

    def __init__(self) -> None:
        self.began_at = 0.0
        self.first_s: float | None = None
        """From the start of the job to the end of its first step."""
        self.last_at: float | None = None
        self.each_s: tuple[float, ...] = ()
        """Of every later step."""

    def begin(self, now: float) -> None:
        self.began_at = now

    def see(self, new_steps: int, now: float) -> None:
        """So many steps ended since the last look; several at once share the time. Restored steps come with the first."""
        if not new_steps:
            return
        if self.last_at is None:
            self.first_s = now - self.began_at
        else:
            self.each_s += ((now - self.last_at) / new_steps,) * new_steps
        self.last_at = now

    @property
    def median_s(self) -> float | None:
        return median(self.each_s) if self.each_s else None


class HeartbeatWriter:
    """Rewrites `heartbeat.json` each time it is called.

    Args:
        expected_steps: after so many the job should come to its end; None: nobody knows.
    """

    def __init__(
        self,
        paths: AttemptPaths,
        clock: Clock,
        expected_steps: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths, self._clock, self._expected_steps, self._monotonic = paths, clock, expected_steps, monotonic
        self._metrics = MetricsTail(paths.metrics)
        self._console_bytes = 0
        self._last_output_at: float | None = None
        self._output_at = self._observed_at = monotonic()
        self.steps = StepTimes()
        self.phase = "prepare"
        self.child_pid: int | None = None

    def begin_command(self, phase: str, child_pid: int) -> None:
        """A command of this phase has just been started."""
        self.phase, self.child_pid = phase, child_pid
        self._output_at = self._observed_at = now = self._monotonic()
        self.steps.begin(now)

    def __call__(self) -> None:
        before = len(self._metrics.seen)
        self._metrics.advance()
        now, passed = self._clock.now(), self._monotonic()
        self.steps.see(len(self._metrics.seen) - before, passed)
        size = self._paths.console.stat().st_size if self._paths.console.exists() else 0
        if size != self._console_bytes:  # our clock, not the file server's
            self._console_bytes, self._last_output_at, self._output_at = size, now, passed
        self._observed_at = passed
        beat = Heartbeat(
            time=now,
            phase=self.phase,
            step=self._metrics.last,
            console_bytes=size,
            last_output_at=self._last_output_at,
            child_pid=self.child_pid,
            step_s=self.steps.median_s,
        )
        write_atomic(self._paths.heartbeat, beat.to_json(), durable=False)

    def signs(self, idle_since: float | None) -> Signs:
        """What the last call saw, for the hang detection; `idle_since` as in `Signs`."""
        done = len(self._metrics.seen)
        phase = Phase.PREPARE if self.phase == "prepare" else Phase.START if not done else Phase.STEPS
        if self._expected_steps and done >= self._expected_steps:
            phase = Phase.END
        return Signs(
            observed_at=self._observed_at,
            phase=phase,
            since=self.steps.last_at if self.steps.last_at is not None else self.steps.began_at,
            output_at=self._output_at,
            idle_since=idle_since,
            own_step_s=self.steps.each_s,
        )
