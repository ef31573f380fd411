"""How workloads move: from stage to stage as time passes, as they are asked to, and as their containers end."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.runai.containers import Launch, Processes, Runtime, environment_of, words_of
from tests.runai.knobs import Knobs
from tests.runai.scheduler import Decision, Node, Placed, Waiting, decide
from tests.runai.workload import OVER, Pod, Stage, Workload

HOLDS_NODES = (Stage.INITIALIZING, Stage.RUNNING, Stage.RETRYING, Stage.PREEMPTING, Stage.STOPPING, Stage.DELETING)
PHASES = {
    Stage.CREATING: "Creating",
    Stage.PENDING: "Pending",
    Stage.INITIALIZING: "Initializing",
    Stage.RUNNING: "Running",
    Stage.STOPPED: "Stopped",
    Stage.RESUMING: "Resuming",
    Stage.COMPLETED: "Completed",
    Stage.FAILED: "Failed",
    Stage.DELETING: "Deleting",
    Stage.GONE: "Deleting",
}
NO_ROOM = "Not enough resources in the requested nodepool"
FAILURE_WORDS = {
    "plain": "Job has reached the specified backoff limit",
    "oom": "OOMKilled: container main was terminated",
}


@dataclass(frozen=True)
class Pace:
    """Seconds that a workload spends in a stage whatever happens."""

    creating_s: float = 0.05
    initializing_s: float = 0.05
    between_runs_s: float = 0.1


@dataclass
class Cluster:
    """Nodes, and the workloads on them.

    Args:
        folder: where containers' logs go.
        memory_mib: pool -> memory of one card, which containers are told.
        secrets: (name, key) -> value of the secrets that specs may refer to.
    """

    nodes: Sequence[Node]
    runtime: Runtime
    folder: Path
    knobs: Knobs = field(default_factory=Knobs)
    pace: Pace = field(default_factory=Pace)
    memory_mib: Mapping[str, int] = field(default_factory=dict)
    secrets: Mapping[tuple[str, str], str] = field(default_factory=dict)
    project: str = "research"
    cluster_id: str = "00000000-0000-4000-8000-000000000001"
    dead: set[str] = field(default_factory=set)
    """Nodes that are gone."""

    # ---- what is asked ---------------------------------------------------------------------------------------------

    def suspend(self, workload: Workload, now: float) -> None:
        workload.desired = "Stopped"
        if workload.stage in (Stage.STOPPING, Stage.STOPPED) or workload.stage in OVER:
            return
        self.move(workload, Stage.STOPPING, now)
        self._terminate(workload, now)

    def resume(self, workload: Workload, now: float) -> None:
        workload.desired = "Running"
        if workload.stage is Stage.STOPPED:
            self.move(workload, Stage.RESUMING, now)

    def delete(self, workload: Workload, now: float) -> None:
        workload.desired = "Deleted"
        if workload.stage in (Stage.DELETING, Stage.GONE):
            return
        workload.deletion_at = now + self.knobs.deletion_delay
        self.move(workload, Stage.DELETING, now)
        self._terminate(workload, now)

    # ---- what happens ----------------------------------------------------------------------------------------------

    def advance(self, workloads: Iterable[Workload], now: float) -> None:
        """Let everything happen that is due."""
        living = [workload for workload in workloads if workload.stage is not Stage.GONE]
        for workload in living:
            self._reap(workload, now)
            self._move_on(workload, now)
        self._schedule(living, now)

    def lose_node(self, name: str, workloads: Iterable[Workload], now: float) -> None:
        """The node dies, and with it without a word what ran there."""
        self.dead.add(name)
        for workload in workloads:
            for pod in workload.running():
                if pod.node == name and pod.container is not None:
                    pod.container.kill()
                    self.event(workload, now, "NodeNotReady", f"Node {name} is not ready", "Warning")

    def move(self, workload: Workload, stage: Stage, now: float, message: str = "") -> None:
        workload.stage, workload.since = stage, now
        if stage in (Stage.PENDING, Stage.PREEMPTING):
            workload.waits_since = now
        if stage in OVER | {Stage.STOPPED, Stage.PENDING}:
            workload.nodes = () if not any(workload.running()) else workload.nodes
        phases = self._phases(stage)
        workload.coming = list(phases[1:])
        self._show(workload, phases[0], message, now)

    def event(self, workload: Workload, now: float, reason: str, message: str, kind: str = "Normal") -> None:
        workload.events.append(
            {"time": now, "type": kind, "reason": reason, "message": message, "id": str(uuid.uuid4())}
        )

    def _phases(self, stage: Stage) -> tuple[str, ...]:
        if stage is Stage.PREEMPTING:
            return self.knobs.preemption_phases
        if stage is Stage.RETRYING:
            return (self.knobs.exit_code_phase,)
        if stage is Stage.STOPPING:
            return (self.knobs.suspend_phases,)
        if stage is Stage.RUNNING and self.knobs.degraded_unknown != "never":
            return ("Running", self.knobs.degraded_unknown, "Running")
        return (PHASES[stage],)

    def _show(self, workload: Workload, phase: str, message: str, now: float) -> None:
        if (phase, message) != (workload.phase, workload.phase_message) or not workload.history:
            workload.history.append((now, phase, message))
        workload.phase, workload.phase_message = phase, message

    def _move_on(self, workload: Workload, now: float) -> None:
        if workload.coming:
            self._show(workload, workload.coming.pop(0), "", now)
        waited = now - workload.since
        match workload.stage:
            case Stage.CREATING | Stage.RESUMING if waited >= self.pace.creating_s:
                self.move(workload, Stage.PENDING, now)
            case Stage.INITIALIZING if waited >= self.pace.initializing_s:
                self._start(workload, now)
            case Stage.RETRYING if waited >= self.pace.between_runs_s:
                self._start(workload, now)
            case Stage.RUNNING:
                self._finish(workload, now)
            case Stage.PREEMPTING if not workload.coming and not any(workload.running()):
                self._give_way(workload, now)
            case Stage.STOPPING if not any(workload.running()):
                self.move(workload, Stage.STOPPED, now)
            case Stage.DELETING if not any(workload.running()) and now >= (workload.deletion_at or now):
                workload.deleted_at = now
                self.move(workload, Stage.GONE, now)
            case Stage.COMPLETED | Stage.FAILED:
                after = workload.spec.get("autoDeletionTimeAfterCompletionSeconds")
                if after is not None and waited >= after:
                    self.delete(workload, now)

    def _reap(self, workload: Workload, now: float) -> None:
        """Notice containers that ended, and kill those that were asked to and did not."""
        overdue = workload.asked_to_end_at is not None and now - workload.asked_to_end_at >= workload.grace_s
        for pod in list(workload.running()):
            assert pod.container is not None
            if overdue:
                pod.container.kill()
            code = pod.container.exit_code()
            if code is not None:
                pod.ended_at, pod.exit_code = now, code

    def _terminate(self, workload: Workload, now: float) -> None:
        workload.asked_to_end_at = now
        for pod in workload.running():
            assert pod.container is not None
            pod.container.terminate()

    def _finish(self, workload: Workload, now: float) -> None:
        first = workload.pods[-len(workload.pod_gpus)]
        if first.ended_at is None:
            return
        for pod in workload.running():  # workers of a master that is done
            assert pod.container is not None
            pod.container.kill()
        if first.exit_code == 0:
            workload.completed_at = now
            self.move(workload, Stage.COMPLETED, now)
        elif workload.reruns < workload.backoff_limit(self.knobs.backoff_limit_zero):
            workload.reruns += 1
            self.event(workload, now, "BackOff", "Back-off restarting failed container", "Warning")
            self.move(workload, Stage.RETRYING, now)
        else:
            workload.completed_at = now
            self.event(workload, now, "BackoffLimitExceeded", FAILURE_WORDS["plain"], "Warning")
            self.move(workload, Stage.FAILED, now, FAILURE_WORDS[self.knobs.failure_wording])

    def _give_way(self, workload: Workload, now: float) -> None:
        if not workload.spec.get("terminateAfterPreemption"):
            self.move(workload, Stage.PENDING, now, NO_ROOM)
        elif self.knobs.preempted_end == "Failed":
            workload.completed_at = now
            self.move(workload, Stage.FAILED, now, "Workload was preempted")
        else:
            workload.desired = "Stopped"
            self.move(workload, Stage.STOPPED, now, "Workload was preempted")

    # ---- nodes and containers --------------------------------------------------------------------------------------

    def _schedule(self, workloads: Sequence[Workload], now: float) -> None:
        nodes = [node for node in self.nodes if node.name not in self.dead]
        placed = [
            Placed(
                one.id,
                one.nodes,
                one.pod_gpus,
                one.priority,
                one.preemptible,
                one.since,
                leaving=one.stage in (Stage.PREEMPTING, Stage.STOPPING, Stage.DELETING),
            )
            for one in workloads
            if one.nodes and one.stage in HOLDS_NODES
        ]
        waiting = [
            Waiting(
                one.id, one.pod_gpus, one.pool_names or self._pools(), one.priority, one.waits_since, one.excluded_nodes
            )
            for one in workloads
            if one.stage is Stage.PENDING
        ]
        self._apply(decide(nodes, placed, waiting), {one.id: one for one in workloads}, now)

    def _apply(self, decision: Decision, workloads: Mapping[str, Workload], now: float) -> None:
        for id_, chosen in decision.starts.items():
            workloads[id_].nodes = chosen
            self.event(workloads[id_], now, "Scheduled", f"Assigned to {', '.join(chosen)}")
            self.move(workloads[id_], Stage.INITIALIZING, now)
        for id_ in decision.evicted:
            self.event(workloads[id_], now, "Preempted", "Preempted by a workload of higher priority", "Warning")
            self.move(workloads[id_], Stage.PREEMPTING, now)
            self._terminate(workloads[id_], now)
        for workload in workloads.values():
            if workload.stage is Stage.PENDING and workload.phase_message != NO_ROOM:
                self._show(workload, "Pending", NO_ROOM, now)
                self.event(workload, now, "Unschedulable", NO_ROOM, "Warning")

    def _start(self, workload: Workload, now: float) -> None:
        _, missing = environment_of(workload.spec.get("environmentVariables") or [], self.secrets)
        if missing:
            if workload.events[-1]["reason"] != "CreateContainerConfigError":
                self.event(workload, now, "CreateContainerConfigError", f"no secret for {missing[0]}", "Warning")
            return
        workload.asked_to_end_at = None
        run = len(workload.pods) // len(workload.pod_gpus)
        for rank, (gpus, node) in enumerate(zip(workload.pod_gpus, workload.nodes, strict=True)):
            pool = next(one.pool for one in self.nodes if one.name == node)
            pod = Pod(f"{workload.name}-{run}-{rank}", gpus, node, pool, now, started_at=now)
            pod.container = self.runtime.start(self._launch(workload, pod, rank))
            workload.pods.append(pod)
        self.event(workload, now, "Started", "Started container main")
        self.move(workload, Stage.RUNNING, now)

    def _launch(self, workload: Workload, pod: Pod, rank: int) -> Launch:
        spec: Mapping[str, Any] = workload.spec
        if rank == 0 and workload.body.get("masterSpec"):
            spec = {**spec, **workload.body["masterSpec"]}
        values, _ = environment_of(spec.get("environmentVariables") or [], self.secrets)
        environ = {
            **values,
            "HOSTNAME": f"{pod.name}-{pod.id[:8]}",
            "RUNAI_PROJECT": self.project,
            "RUNAI_JOB_NAME": workload.name,
            "RUNAI_JOB_UUID": workload.id,
            "RUNAI_NUM_OF_GPUS": str(pod.gpus),
            "NODE_NAME": pod.node,
            "DOUBLE_NODE_POOL": pod.pool,
            "DOUBLE_GPU_MEMORY_MIB": str(self.memory_mib.get(pod.pool, 0)),
        }
        if workload.kind == "distributed":
            environ |= {"RANK": str(rank), "WORLD_SIZE": str(len(workload.pod_gpus)), "MASTER_ADDR": "127.0.0.1"}
        words = words_of(spec.get("command"), spec.get("args"), self.knobs.tokenisation)
        folder = Path(spec["workingDir"]) if spec.get("workingDir") else None
        return Launch(words, environ, folder, self.log(workload))

    def log(self, workload: Workload) -> Path:
        """Output of the workload's containers, of all runs."""
        return self.folder / f"{workload.id}.log"

    def _pools(self) -> tuple[str, ...]:
        """The project's default order."""
        return tuple(dict.fromkeys(node.pool for node in self.nodes))


def local(nodes: Sequence[Node], folder: Path, **more: Any) -> Cluster:
    """A cluster whose containers are processes of this machine."""
    return Cluster(nodes, Processes(), folder, **more)
