"""What a sink is: a place outside the store where a sweep is shown while it runs.

A sink is told the same facts again and again, after every change and once more after a crash. Hence the one rule,
which `tests/contracts/` checks: **writing the same record twice changes nothing**. A sink holds no truth; whatever it
lost can be written again from the store.

Failures: a sink that cannot be opened says so at once, as a `SinkError`, before any job is submitted. Later failures
never stop a sweep: its methods raise, and whoever drives the sweep turns that into a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.errors import OrchestratorError
from orchestrator.model import Anomaly, AttemptState, PointState, Scalar, Verdict

STEP_SECONDS = "timing_s/step"
"""Metric that holds how long a step took."""


class SinkError(OrchestratorError):
    """A sink cannot be opened or does not take a record."""


@dataclass(frozen=True)
class MetricRow:
    """One value of a series."""

    step: int
    key: str
    value: float
    timestamp_ms: int
    """Never now(): counted from the attempt's start, so that a value written again carries the same time."""


@dataclass(frozen=True)
class Artifact:
    """A file to keep beside the figures."""

    path: Path
    folder: str = ""
    """Where it goes; empty for the top."""


@dataclass(frozen=True)
class SweepRecord:
    """A sweep as it was started. `name` and `created_at_ms` together tell it from every other."""

    name: str
    created_at_ms: int
    description: str = ""
    axes: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    """Free, shown as they are: commit, user, spec path, ..."""
    note_markdown: str = ""


@dataclass(frozen=True)
class SweepEnd:
    """How a sweep ended, with what is shown in its place."""

    name: str
    status: PointState
    """succeeded, failed or cancelled."""
    ended_at_ms: int
    note_markdown: str = ""
    """Takes the place of the sweep's note; empty leaves that as it is."""
    summary: Mapping[str, float] = field(default_factory=dict)
    """Figures of the whole sweep; keys begin with `sweep/`."""
    artifacts: tuple[Artifact, ...] = ()
    """The report and its plots; a newer file replaces an older one of the same name."""


@dataclass(frozen=True)
class AttemptRecord:
    """One try of a point. Times in milliseconds since the epoch."""

    n: int
    state: AttemptState
    pool: str | None = None
    backend: str | None = None
    job: str | None = None
    """The backend's handle or name."""
    verdict: Verdict | None = None
    reason: str | None = None
    exit_code: int | None = None
    started_at_ms: int | None = None
    ended_at_ms: int | None = None


@dataclass(frozen=True)
class PointRecord:
    """A point and its latest attempt: series, summary and artifacts are that attempt's alone."""

    sweep: str
    id: str
    name: str
    state: PointState
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    """The axes."""
    replicate: frozenset[str] = frozenset()
    """Axes that only repeat a point: those with the same values in all others are the same settings."""
    fixed: Mapping[str, Scalar] = field(default_factory=dict)
    """The few settings without an axis that people ask about."""
    trials: tuple[int, ...] = ()
    """Of a search: Optuna's numbers of the trials that this point answers."""
    verdict: Verdict | None = None
    anomalies: tuple[Anomaly, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()
    """Ascending; empty for a point that was never tried."""
    started_at_ms: int | None = None
    ended_at_ms: int | None = None
    metrics: Sequence[MetricRow] = ()
    """The training series so far, whole steps only."""
    npz: Sequence[MetricRow] = ()
    """Statistics of the NPZ files so far, a step each; keys begin with `npz/`."""
    summary: Mapping[str, float] = field(default_factory=dict)
    """One figure a run (peaks, ...); keys begin with `summary/`. Taken once, when the attempt is judged."""
    artifacts: tuple[Artifact, ...] = ()
    """Taken once the attempt is judged; files that do not exist are left out."""

    @property
    def is_judged(self) -> bool:
        return bool(self.attempts) and self.attempts[-1].state is AttemptState.JUDGED


class Sink(Protocol):
    """Every method may raise `SinkError`, or whatever its library raises."""

    def write_sweep(self, sweep: SweepRecord) -> str | None:
        """Before any of its points, at every start and resume. Returns the sink's own name for it, if it has one."""

    def write_point(self, point: PointRecord) -> None:
        """After every change of the point or its series."""

    def finish_sweep(self, end: SweepEnd) -> None:
        """Close it, with the report. A later `write_sweep` opens it again."""


def metric_rows(metrics: Mapping[int, Mapping[str, float]], started_at_ms: int) -> list[MetricRow]:
    """Series of one attempt, ascending by step, with times that are the same at every call.

    `metrics.jsonl` carries no time. A step's time is the attempt's start plus the seconds of all steps up to it, as the
    trainer measured them; a step that measured none counts for one millisecond.
    """
    rows, elapsed_ms = [], 0.0
    for step, values in sorted(metrics.items()):
        seconds = values.get(STEP_SECONDS, 0.0)
        elapsed_ms += max(1.0, 1000.0 * seconds) if 0 <= seconds < float("inf") else 1.0
        rows += [MetricRow(step, key, value, started_at_ms + int(elapsed_ms)) for key, value in sorted(values.items())]
    return rows
