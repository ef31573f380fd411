"""The rows of the store as frozen dataclasses: what the pure parts reason about and the store keeps. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.model import Anomaly, AttemptState, PointState, Prediction, Scalar, Verdict


@dataclass(frozen=True)
class SweepRow:
    name: str
    description: str
    spec_path: str
    spec: dict[str, Any]
    """The typed sweep file as plain data: `SweepSpec.model_validate` restores it."""
    backend: str
    profile: str | None
    command: str
    git: dict[str, Any] | None
    environment: dict[str, str]
    created_at: float
    finished_at: float | None = None
    stop_reason: str | None = None


@dataclass(frozen=True)
class PointRow:
    sweep: str
    id: str
    index: int
    name: str
    parameters: dict[str, Scalar]
    replicate: dict[str, Scalar]
    overrides: tuple[str, ...]
    hash: str
    state: PointState
    reason: str | None = None
    unlogged: bool = True
    not_before: float | None = None
    """Waits until then: the back-off of a retry."""
    predicted: Prediction | None = None


@dataclass(frozen=True)
class Measured:
    """What an attempt was seen to take. None: nothing could be seen."""

    steps: int = 0
    """The last training step that was completed."""
    checkpoint: int = 0
    """The step of the newest checkpoint when it ended; 0 without one."""
    step_s: float | None = None
    """Median seconds of a step."""
    start_s: float | None = None
    """Seconds from the start of the job to the end of its first step."""
    gpu_bytes: int | None = None
    host_bytes: int | None = None
    node: str | None = None
    """The host that ran it, by its claim."""


@dataclass(frozen=True)
class AttemptRow:
    sweep: str
    point: str
    n: int
    token: str
    job_name: str
    pool: str | None
    state: AttemptState
    created_at: float
    host_memory_bytes: int | None = None
    patch: dict[str, Scalar] = field(default_factory=dict)
    """Keys of the configuration that the retry policy changed, with their values in this attempt."""
    exclude_nodes: tuple[str, ...] = ()
    not_before: float | None = None
    """Not submitted before: the backend had no room."""
    deferrals: int = 0
    """How often it had none."""
    handle: str | None = None
    superseded: bool = False
    """Tried before the user asked for a rerun: history, but charged to no budget."""
    cancel_requested: bool = False
    gone: bool = False
    scheduler_reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    facts: tuple[str, ...] = ()
    fingerprint: str | None = None
    anomalies: tuple[Anomaly, ...] = field(default=())
    started_at: float | None = None
    ended_at: float | None = None
    measured: Measured | None = None


@dataclass(frozen=True)
class Measurement:
    """What a completed attempt of any sweep was seen to take, beside what its point was expected to."""

    predicted: Prediction
    pool: str | None
    seconds: float | None
    """Of the whole attempt."""
    measured: Measured


@dataclass(frozen=True)
class EventRow:
    id: int
    time: float
    sweep: str
    point: str | None
    attempt: int | None
    from_state: str | None
    to_state: str | None
    detail: str | None


@dataclass(frozen=True)
class View:
    """A sweep as the store knows it."""

    points: tuple[PointRow, ...]
    attempts: Mapping[str, tuple[AttemptRow, ...]] = field(default_factory=dict)
    """By point id, ascending n."""

    @classmethod
    def of(cls, points: Sequence[PointRow], attempts: Sequence[AttemptRow]) -> View:
        by_point: dict[str, list[AttemptRow]] = defaultdict(list)
        for attempt in attempts:
            by_point[attempt.point].append(attempt)
        return cls(tuple(points), {key: tuple(sorted(rows, key=lambda row: row.n)) for key, rows in by_point.items()})

    def history(self, point: PointRow) -> tuple[AttemptRow, ...]:
        return self.attempts.get(point.id, ())

    @property
    def stopped(self) -> str | None:
        """Why the sweep starts no more points; None while it does."""
        blocked = (point for point in self.points if point.state is PointState.BLOCKED)
        return next((point.reason or "" for point in blocked), None)

    @property
    def finished(self) -> bool:
        return all(point.state.is_terminal for point in self.points)
