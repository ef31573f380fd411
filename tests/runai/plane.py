"""The control plane's memory, and what may be done to it; HTTP is elsewhere."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.clock import Clock, SystemClock
from tests.runai.containers import Processes, Runtime
from tests.runai.faults import Faults
from tests.runai.knobs import Knobs
from tests.runai.lifecycle import Cluster, Pace
from tests.runai.scheduler import PRIORITIES, Node
from tests.runai.tokens import CLIENT_ID, CLIENT_SECRET, Tokens
from tests.runai.workload import OVER, Stage, Workload

PROJECT = {"id": "4501", "name": "research", "clusterId": "b3d0c0de-0000-4000-8000-00000000000a"}
CARDS = {"h100": 81_559, "h200": 143_771}
"""Pool -> memory of one card, MiB."""
NODES = tuple(Node(f"{pool}-{index}", pool) for pool in CARDS for index in range(2))
MAX_NAME = 63
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
MPI_FIELDS = ("slotsPerWorker", "sshAuthMountPath", "mpiLauncherCreationPolicy")


class Refused(Exception):
    """The control plane says no."""

    def __init__(self, status: int, message: str, details: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.details = status, message, details


def not_found() -> Refused:
    return Refused(404, "Resource id not found.")


@dataclass
class ControlPlane:
    """A control plane with one project on one cluster of two pools.

    Args:
        folder: where the logs of containers go.
        knobs: how it behaves where nobody knows.
        pace: how long its stages take.
    """

    folder: Path
    knobs: Knobs = field(default_factory=Knobs)
    clock: Clock = field(default_factory=SystemClock)
    runtime: Runtime = field(default_factory=Processes)
    pace: Pace = field(default_factory=Pace)
    nodes: Sequence[Node] = NODES
    secrets: Mapping[tuple[str, str], str] = field(default_factory=dict)
    version: str = "2.24.5"
    shows_nodes: bool = True
    """Whether the account may see nodes; researchers need not."""
    domain: str = ""
    """Of the cluster; the server says its own."""
    faults: Faults = field(default_factory=Faults)
    workloads: dict[str, Workload] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.tokens = Tokens(self.clock, self.knobs.token_ttl)
        self.cluster = Cluster(
            self.nodes,
            self.runtime,
            self.folder,
            self.knobs,
            self.pace,
            CARDS,
            self.secrets,
            PROJECT["name"],
            PROJECT["clusterId"],
        )

    def environ(self, url: str) -> dict[str, str]:
        """What a client has to be told."""
        return {
            "RUNAI_BASE_URL": url,
            "RUNAI_CLIENT_ID": CLIENT_ID,
            "RUNAI_CLIENT_SECRET": CLIENT_SECRET,
            "RUNAI_PROJECT": PROJECT["name"],
        }

    def advance(self) -> None:
        """Let everything happen that is due by now."""
        with self.lock:
            self.cluster.advance(self.workloads.values(), self.clock.now())

    # ---- what clients ask for ------------------------------------------------------------------------------------

    def create(self, kind: str, body: Mapping[str, Any]) -> Workload:
        self._check(kind, body)
        now, requested = self.clock.now(), str(body["name"])
        name = f"{requested}-{secrets.token_hex(3)}" if body.get("useGivenNameAsPrefix") else requested
        if any(one.name == name and self._holds_name(one, now) for one in self.workloads.values()):
            message = f"workload with name '{name}' already exists in this project"
            raise Refused(self.knobs.duplicate_status, message)
        workload = Workload(name, requested, kind, body, now, since=now, history=[(now, "Creating", "")])
        self.workloads[workload.id] = workload
        return workload

    def find(self, id_: str, kind: str | None = None) -> Workload:
        """The workload of that id.

        Raises:
            Refused: there is none, or it is of another kind.
        """
        workload = self.workloads.get(id_)
        if workload is None or (workload.stage is Stage.GONE and self.knobs.deleted_status == 404):
            raise not_found()
        if kind is not None and workload.kind != kind:
            raise Refused(self.knobs.wrong_kind_status, "Resource id not found.")
        return workload

    def suspend(self, workload: Workload) -> None:
        self._refuse_what_is_over(workload, OVER)
        self.cluster.suspend(workload, self.clock.now())

    def resume(self, workload: Workload) -> None:
        self._refuse_what_is_over(workload, OVER)
        self.cluster.resume(workload, self.clock.now())

    def delete(self, workload: Workload) -> None:
        self._refuse_what_is_over(workload, frozenset({Stage.DELETING, Stage.GONE}))
        self.cluster.delete(workload, self.clock.now())

    def listed(self, deleted: bool) -> list[Workload]:
        """Those that a list may show, in the order in which they were made."""
        visible_before = self.clock.now() - self.knobs.listing_lag
        return [
            workload
            for workload in self.workloads.values()
            if (workload.stage is Stage.GONE) == deleted and workload.created_at <= visible_before
        ]

    # ---- what others do --------------------------------------------------------------------------------------------

    def named(self, start: str) -> list[Workload]:
        with self.lock:
            return [workload for workload in self.workloads.values() if workload.name.startswith(start)]

    def forget(self, id_: str) -> None:
        """Kill it and remember nothing: no list, no detail ever shows it again."""
        with self.lock:
            for pod in self.workloads.pop(id_).running():
                assert pod.container is not None
                pod.container.kill()

    def lose_node(self, name: str) -> None:
        with self.lock:
            self.cluster.lose_node(name, self.workloads.values(), self.clock.now())

    def somebody_submits(
        self, name: str, pool: str, command: str, priority: str = "very-high", gpus: int = 8
    ) -> Workload:
        """A workload of another user."""
        spec = {
            "image": "busybox",
            "command": command,
            "nodePools": [pool],
            "priorityClass": priority,
            "preemptibility": "non-preemptible",
            "compute": {"gpuDevicesRequest": gpus},
            "backoffLimit": 0,
            "terminationGracePeriodSeconds": 1,
        }
        with self.lock:
            body = {"name": name, "projectId": PROJECT["id"], "clusterId": PROJECT["clusterId"], "spec": spec}
            return self.create("training", body)

    def close(self) -> None:
        """Kill what runs."""
        with self.lock:
            for workload in self.workloads.values():
                for pod in workload.running():
                    assert pod.container is not None
                    pod.container.kill()

    # ---- rules -----------------------------------------------------------------------------------------------------

    def _refuse_what_is_over(self, workload: Workload, over: frozenset[Stage]) -> None:
        if workload.stage in over and self.knobs.ended_status != 202:
            raise Refused(self.knobs.ended_status, f"workload is {workload.phase}")

    def _holds_name(self, workload: Workload, now: float) -> bool:
        if workload.deleted_at is None:
            return True
        return now < workload.deleted_at + self.knobs.name_reuse_after_delete

    def _check(self, kind: str, body: Mapping[str, Any]) -> None:
        """What the real server checks beyond the form of a request."""
        name, spec = str(body["name"]), body.get("spec") or {}
        compute = spec.get("compute") or {}
        rules = {
            f"The length of a workload name must not exceed {MAX_NAME} characters": len(name) <= MAX_NAME,
            "Workload name must consist of lower case alphanumeric characters or '-', and start with an alphabetic "
            "character": NAME.fullmatch(name) is not None,
            f"project {body['projectId']} was not found": body["projectId"] == PROJECT["id"],
            f"cluster {body['clusterId']} was not found": body["clusterId"] == PROJECT["clusterId"],
            "spec.image is mandatory": bool(spec.get("image")),
            f"priority class {spec.get('priorityClass')} was not found": (spec.get("priorityClass") or "low")
            in PRIORITIES,
            "a part of a GPU cannot be asked for together with several GPUs": (compute.get("gpuDevicesRequest") or 0)
            <= 1
            or not any(value for key, value in compute.items() if key.startswith(("gpuPortion", "gpuMemory"))),
            "exactly one of masterSpec and masterSpecSameAsWorker is needed": kind == "training"
            or bool(body.get("masterSpec")) != bool(body.get("masterSpecSameAsWorker")),
            "fields of MPI in a workload of another framework": self.knobs.mpi_defaults == "accepted"
            or spec.get("distributedFramework") == "MPI"
            or not any(spec.get(key) for key in MPI_FIELDS),
        }
        if self.knobs.args_limit is not None:
            longest = max((len(spec.get(key) or "") for key in ("command", "args")), default=0)
            rules[f"a value exceeds {self.knobs.args_limit} characters"] = longest <= self.knobs.args_limit
        for message, holds in rules.items():
            if not holds:
                raise Refused(400, message)
