"""One workload as the control plane remembers it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.runai.containers import Container
from tests.runai.scheduler import PRIORITIES

DEFAULT_BACKOFF_LIMIT = 6
DEFAULT_PRIORITY = "low"
DEFAULT_GRACE_S = 30.0


class Stage(StrEnum):
    """Where a workload really is; the phase is what is said of it."""

    CREATING = "creating"
    PENDING = "pending"
    INITIALIZING = "initializing"
    RUNNING = "running"
    RETRYING = "retrying"
    PREEMPTING = "preempting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    RESUMING = "resuming"
    COMPLETED = "completed"
    FAILED = "failed"
    DELETING = "deleting"
    GONE = "gone"


OVER = frozenset({Stage.COMPLETED, Stage.FAILED, Stage.DELETING, Stage.GONE})


@dataclass
class Pod:
    """One start of one container of a workload."""

    name: str
    gpus: int
    node: str
    pool: str
    created_at: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    container: Container | None = None
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None

    @property
    def phase(self) -> str:
        """The word of Kubernetes."""
        if self.ended_at is not None:
            return "Succeeded" if self.exit_code == 0 else "Failed"
        return "Running" if self.started_at is not None else "Pending"


@dataclass
class Workload:
    """What was asked for, and what became of it. Times are seconds since the epoch."""

    name: str
    requested_name: str
    kind: str
    """`training` or `distributed`, as in the path that it was created by."""
    body: Mapping[str, Any]
    created_at: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    stage: Stage = Stage.CREATING
    since: float = 0.0
    """When the stage began."""
    waits_since: float = 0.0
    """Its place in the queue."""
    phase: str = "Creating"
    phase_message: str = ""
    coming: list[str] = field(default_factory=list)
    """Phases still to be shown, one a tick, before the stage's own."""
    desired: str = "Running"
    nodes: tuple[str, ...] = ()
    pods: list[Pod] = field(default_factory=list)
    reruns: int = 0
    asked_to_end_at: float | None = None
    deletion_at: float | None = None
    deleted_at: float | None = None
    completed_at: float | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    history: list[tuple[float, str, str]] = field(default_factory=list)
    """(time, phase, message)."""

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.body.get("spec") or {}

    @property
    def environment(self) -> dict[str, str]:
        variables = self.spec.get("environmentVariables") or []
        return {one["name"]: one["value"] for one in variables if one.get("value") is not None}

    @property
    def pool_names(self) -> tuple[str, ...]:
        return tuple(self.spec.get("nodePools") or ())

    @property
    def excluded_nodes(self) -> tuple[str, ...]:
        """Of the required affinity, the one form that keeps away from nodes by name."""
        terms = (self.spec.get("nodeAffinityRequired") or {}).get("nodeSelectorTerms") or []
        conditions = [condition for term in terms for condition in term.get("matchExpressions") or []]
        by_name = [one for one in conditions if (one["key"], one["operator"]) == ("kubernetes.io/hostname", "NotIn")]
        return tuple(name for one in by_name for name in one.get("values") or [])

    @property
    def pod_gpus(self) -> tuple[int, ...]:
        """GPUs of each pod; the first one's end is the workload's end."""
        gpus = (self.spec.get("compute") or {}).get("gpuDevicesRequest") or 0
        if self.kind == "training":
            return (gpus,)
        master = self.body.get("masterSpec") or {}
        own = (master.get("compute") or {}).get("gpuDevicesRequest", gpus)
        return (own, *(gpus for _ in range(self.spec.get("numWorkers") or 1)))

    @property
    def priority_class(self) -> str:
        return self.spec.get("priorityClass") or DEFAULT_PRIORITY

    @property
    def priority(self) -> int:
        return PRIORITIES.get(self.priority_class, PRIORITIES[DEFAULT_PRIORITY])

    @property
    def preemptible(self) -> bool:
        asked = self.spec.get("preemptibility")
        return self.priority < 100 if asked is None else asked == "preemptible"

    @property
    def grace_s(self) -> float:
        asked = self.spec.get("terminationGracePeriodSeconds")
        return DEFAULT_GRACE_S if asked is None else float(asked)

    def backoff_limit(self, zero: str) -> int:
        """How often a failure is run again, under a guess at what 0 means."""
        asked = self.spec.get("backoffLimit")
        if asked is None:
            return DEFAULT_BACKOFF_LIMIT
        return 1 if asked == 0 and zero == "raised" else asked

    def running(self) -> Iterator[Pod]:
        return (pod for pod in self.pods if pod.container is not None and pod.ended_at is None)
