"""The rows of the store as frozen dataclasses: what the pure parts reason about and the store keeps. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from orchestrator.model import Anomaly, AttemptState, PointState, Scalar, Verdict


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
