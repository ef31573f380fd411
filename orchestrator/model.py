"""Plain types that every part shares: states with their only legal transitions, and frozen records. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Scalar = str | int | float | bool | None


class PointState(StrEnum):
    """planned -> ready -> active -> succeeded | failed | pruned | cancelled; side exits skipped, blocked."""

    PLANNED = "planned"
    READY = "ready"
    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PRUNED = "pruned"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    BLOCKED = "blocked"

    @property
    def is_terminal(self) -> bool:
        return self not in (PointState.PLANNED, PointState.READY, PointState.ACTIVE)


class AttemptState(StrEnum):
    """created -> submitting -> submitted -> queued -> running -> ended -> collected -> judged.

    `uncertain` branches off submitting: the backend may have accepted the job. It goes on to submitted when the job is
    found by name, or back to submitting when the backend positively knows no such job.
    """

    CREATED = "created"
    SUBMITTING = "submitting"
    UNCERTAIN = "uncertain"
    SUBMITTED = "submitted"
    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    COLLECTED = "collected"
    JUDGED = "judged"

    @property
    def is_live(self) -> bool:
        """Some job of it may exist at the backend and may still be running."""
        return self not in (AttemptState.ENDED, AttemptState.COLLECTED, AttemptState.JUDGED)


_P, _A = PointState, AttemptState

POINT_TRANSITIONS: dict[PointState, frozenset[PointState]] = {
    _P.PLANNED: frozenset({_P.READY, _P.SKIPPED, _P.BLOCKED, _P.CANCELLED}),
    _P.READY: frozenset({_P.ACTIVE, _P.SKIPPED, _P.BLOCKED, _P.CANCELLED}),
    _P.ACTIVE: frozenset({_P.READY, _P.SUCCEEDED, _P.FAILED, _P.PRUNED, _P.CANCELLED}),
    _P.SUCCEEDED: frozenset({_P.FAILED}),  # judged again
    _P.FAILED: frozenset({_P.READY, _P.SUCCEEDED}),  # rerun; judged again
    _P.PRUNED: frozenset({_P.READY}),
    _P.CANCELLED: frozenset({_P.READY}),
    _P.SKIPPED: frozenset({_P.PLANNED}),  # back in the sweep file
    _P.BLOCKED: frozenset({_P.READY}),
}

ATTEMPT_TRANSITIONS: dict[AttemptState, frozenset[AttemptState]] = {
    _A.CREATED: frozenset({_A.SUBMITTING, _A.ENDED}),
    _A.SUBMITTING: frozenset({_A.SUBMITTED, _A.UNCERTAIN, _A.ENDED, _A.CREATED}),  # back to created: deferred
    _A.UNCERTAIN: frozenset({_A.SUBMITTING, _A.SUBMITTED, _A.ENDED}),
    _A.SUBMITTED: frozenset({_A.QUEUED, _A.RUNNING, _A.ENDED}),
    _A.QUEUED: frozenset({_A.RUNNING, _A.ENDED}),
    _A.RUNNING: frozenset({_A.QUEUED, _A.ENDED}),  # back to queued: requeued by the scheduler
    _A.ENDED: frozenset({_A.COLLECTED}),
    _A.COLLECTED: frozenset({_A.JUDGED}),
    _A.JUDGED: frozenset(),
}


class Verdict(StrEnum):
    """What an attempt came to, by evidence; `triage` gives it, `policy` acts on it."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node_failure"
    HOST_OOM = "host_oom"
    GPU_OOM = "gpu_oom"
    TIME_LIMIT = "time_limit"
    HANG = "hang"
    CODE_ERROR = "code_error"
    CONFIG_ERROR = "config_error"
    MISSING_OUTPUT = "missing_output"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Pool:
    """A kind of node. `memory_mib` is the card's physical memory as the driver states it (H100 80GB: 81,559)."""

    name: str
    gpus: int = 0
    memory_mib: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """Passed to the backend by name: partition, constraint, node_pool, ..."""
    patch: dict[str, str] = field(default_factory=dict)
    """What the configuration of a job has otherwise on these nodes: expressions by key, see `orchestrator.patches`."""


@dataclass(frozen=True)
class Resources:
    """What one attempt asks for."""

    gpus: int = 0
    ladder: tuple[str, ...] = ()
    """Pools from small to large; empty: the backend's only pool."""
    time_s: float | None = None
    host_memory_bytes: int | None = None
    exclude_nodes: tuple[str, ...] = ()
    """Nodes that failed under earlier attempts; a backend that cannot choose nodes ignores them."""


@dataclass(frozen=True)
class Estimate:
    """A figure that is not known yet, and the interval that it is expected in."""

    value: float
    low: float
    high: float
    basis: str = "shapes"
    """shapes: by formula from the configuration; measured: of the same configuration; scaled: of the nearest one."""


@dataclass(frozen=True)
class Forecast:
    """What one attempt of a point is expected to take on one pool. None: unknown, which never holds anything up."""

    gpu_bytes: Estimate | None = None
    """Most memory in use on any one card."""
    gpu_least_bytes: float | None = None
    """What a card must have: with everything in host memory that the job moves there by itself."""
    host_bytes: Estimate | None = None
    """Of one node."""
    step_s: Estimate | None = None
    seconds: Estimate | None = None
    """Of the whole attempt."""


@dataclass(frozen=True)
class Prediction:
    """What a point is expected to take, before it runs."""

    kind: str
    """What is run: only measurements of the same kind say anything about it."""
    features: Mapping[str, Scalar] = field(default_factory=dict)
    """The numbers and words that its cost depends on; empty where nobody knows the shapes."""
    footprint_bytes: float | None = None
    """GPU memory by formula, the same on every pool: what makes one point larger than another."""
    formula: Mapping[str, Forecast] = field(default_factory=dict)
    """By pool, from the shapes alone; the pool of a machine without GPUs is the empty name."""
    on: Mapping[str, Forecast] = field(default_factory=dict)
    """By pool, corrected by what was measured."""


@dataclass(frozen=True)
class Point:
    """One resolved configuration of a sweep."""

    id: str
    """First 10 hexadecimal digits of `hash`; names the folder."""
    index: int
    """0-based place in the expansion order."""
    name: str
    parameters: dict[str, Scalar]
    replicate: dict[str, Scalar]
    """The replicate axes' part of the parameters: statistics need to know it."""
    overrides: tuple[str, ...]
    """The whole list of Hydra overrides, sweep-wide ones first."""
    config: dict[str, Any]
    """Resolved, with `{root}`, `{sweep_dir}`, `{point_dir}`, `{attempt_dir}` and `{python}` not yet filled in."""
    hash: str
    """sha256 of the canonical config without the keys of `identity.exclude`."""
    predicted: Prediction | None = None


@dataclass(frozen=True)
class Anomaly:
    """A flag on a run; it never changes the state by itself."""

    code: str
    message: str
