"""Workloads as the API shows them: no exit code, no reason of an end, nothing that the real one does not have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tests.runai.workload import Pod, Stage, Workload

TENANT = 1001
DEPARTMENT = {"id": "2", "name": "department-1"}
USER = "orchestrator-tests"
KINDS = {"training": "Training", "distributed": "Distributed"}
LIST_FIELDS = {
    **{name: name for name in ("type", "name", "clusterId", "projectId", "projectName", "departmentId", "submittedBy")},
    **{name: name for name in ("departmentName", "createdAt", "deletedAt", "completedAt", "phase", "category")},
    **{name: name for name in ("phaseUpdatedAt", "priority", "priorityClassName", "distributedFramework")},
    **{name: name for name in ("totalPendingTimeSeconds", "totalRunningTimeSeconds", "idleGpus")},
    "nodepool": "currentNodePools",
}
"""Names in `filterBy` and `sortBy` -> keys of a row."""


def stamp(time: float | None) -> str | None:
    """Seconds since the epoch as the API writes times."""
    if time is None:
        return None
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not known."""
    return {key: value for key, value in values.items() if value is not None}


def created(workload: Workload, project: Mapping[str, Any]) -> dict[str, Any]:
    """What POST and GET of `/workloads/trainings` (or `distributed`) answer."""
    body = workload.body
    more = {key: body[key] for key in ("masterSpec", "masterSpecSameAsWorker") if key in body}
    return {
        "name": workload.name,
        "requestedName": workload.requested_name,
        "workloadId": workload.id,
        "projectId": project["id"],
        "departmentId": DEPARTMENT["id"],
        "clusterId": project["clusterId"],
        "createdBy": USER,
        "createdAt": stamp(workload.created_at),
        "deletedAt": stamp(workload.deleted_at),
        "desiredPhase": workload.desired,
        "actualPhase": workload.phase,
        "spec": body.get("spec"),
    } | more


def row(workload: Workload, project: Mapping[str, Any], shows_environment: bool) -> dict[str, Any]:
    """A workload in the list of all."""
    spec, since = workload.spec, workload.history[-1][0]
    running = list(workload.running())
    gpus = sum(workload.pod_gpus)
    return {
        "deletedAt": stamp(workload.deleted_at),
        "priority": workload.priority,
    } | present(
        {
            "tenantId": TENANT,
            "runningPods": len(running),
            "phaseUpdatedAt": stamp(since),
            "k8sPhaseUpdatedAt": stamp(since),
            "updatedAt": stamp(since),
            "source": "Control-plane",
            "type": KINDS[workload.kind],
            "name": workload.name,
            "id": workload.id,
            "priorityClassName": workload.priority_class,
            "submittedBy": USER,
            "clusterId": project["clusterId"],
            "projectName": project["name"],
            "projectId": project["id"],
            "departmentName": DEPARTMENT["name"],
            "departmentId": DEPARTMENT["id"],
            "namespace": f"runai-{project['name']}",
            "createdAt": stamp(workload.created_at),
            "workloadRequestedResources": {"gpu": {"request": gpus}},
            "allocatedResources": {"gpu": gpus if workload.nodes else 0},
            "actionsSupport": {"delete": True, "suspend": True},
            "phase": workload.phase,
            "conditions": [],
            "phaseMessage": workload.phase_message or None,
            "k8sPhase": workload.pods[-1].phase if workload.pods else "Pending",
            "requestedPods": {"number": len(workload.pod_gpus)},
            "requestedNodePools": list(workload.pool_names),
            "currentNodePools": sorted({pod.pool for pod in running}),
            "completedAt": stamp(workload.completed_at),
            "images": [spec["image"]] if spec.get("image") else [],
            "distributedFramework": spec.get("distributedFramework"),
            "preemptible": workload.preemptible,
            "environmentVariables": workload.environment if shows_environment else None,
            "command": spec.get("command"),
            "arguments": spec.get("args"),
            "category": spec.get("category") or "Train",
        }
    )


def pod_row(pod: Pod, workload: Workload, project: Mapping[str, Any]) -> dict[str, Any]:
    """A pod; its containers have a name, an image and a start, and no end."""
    since = stamp(pod.ended_at or pod.started_at or pod.created_at)
    container = {"name": "main", "image": workload.spec.get("image") or "", "startedAt": stamp(pod.started_at)}
    return present(
        {
            "name": pod.name,
            "priorityClassName": workload.priority_class,
            "id": pod.id,
            "workloadId": workload.id,
            "workloadName": workload.name,
            "clusterId": project["clusterId"],
            "projectId": project["id"],
            "projectName": project["name"],
            "nodeName": pod.node,
            "createdAt": stamp(pod.created_at),
            "completedAt": stamp(pod.ended_at),
            "containers": [present(container)],
            "currentNodePool": pod.pool,
            "requestedNodePools": list(workload.pool_names),
            "requestedResources": {"gpu": {"request": pod.gpus}},
            "allocatedResources": {"gpu": pod.gpus if pod.phase == "Running" else 0},
            "k8sPhase": pod.phase,
            "tenantId": TENANT,
            "k8sPhaseUpdatedAt": since,
            "updatedAt": since,
        }
    )


def event_row(event: Mapping[str, Any], workload: Workload, project: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "createdAt": stamp(event["time"]),
        "id": event["id"],
        "type": event["type"],
        "clusterId": project["clusterId"],
        "message": event["message"],
        "reason": event["reason"],
        "source": "runai-scheduler",
        "involvedObject": {
            "uid": workload.id,
            "kind": "TrainingWorkload" if workload.kind == "training" else "DistributedWorkload",
            "name": workload.name,
            "namespace": f"runai-{project['name']}",
        },
    }


def history_rows(workload: Workload, project: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Events and changes of phase together, in time."""
    records = [
        (event["time"], "Event", {"event": event_row(event, workload, project)}) for event in workload.events
    ] + [
        (time, "PhaseUpdate", {"phaseUpdate": {"phase": phase, "phaseMessage": message}})
        for time, phase, message in workload.history
    ]
    return [
        {"meta": {"type": kind, "creationTimestamp": stamp(time)}, "spec": spec}
        for time, kind, spec in sorted(records, key=lambda record: record[0])
    ]


def pending_messages(workload: Workload) -> list[dict[str, Any]]:
    """Why a workload waits, as its details show it."""
    if workload.stage is not Stage.PENDING:
        return []
    return [
        {"nodePool": pool, "phaseReason": "OverLimit", "reason": "OverLimit", "userMessage": workload.phase_message}
        for pool in workload.pool_names
    ]
