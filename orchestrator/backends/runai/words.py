"""What Run:ai says about one workload, for people: phase, pods, what the scheduler waits for, the last events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.backends.runai import observation
from orchestrator.backends.runai.client import Client
from orchestrator.errors import BackendError

WORKLOADS = "/api/v1/workloads"
LAST_EVENTS = 6
LAST_PHASES = 3
_PREEMPTION = "preempt"


def describe(client: Client, workload: str) -> list[str]:
    """One fact a line, the present first; what cannot be asked is left out.

    Raises:
        BackendError: the workload itself cannot be asked for.
    """
    row = client.get(f"{WORKLOADS}/{workload}")
    happened = [("phase", line) for line in phases(client, workload)[-LAST_PHASES:]]
    happened += [("event", line) for line in events(client, workload)[-LAST_EVENTS:]]
    return [*_state(row), *(f"{kind}: {line}" for kind, line in happened)]


def _state(row: Any) -> Iterator[str]:
    if not isinstance(row, Mapping):
        return
    said = observation.reason(dict(row))
    yield f"phase {row.get('phase')}" + (f": {said}" if said else "")
    pools = row.get("currentNodePools") or row.get("requestedNodePools")
    if isinstance(pools, list) and pools:
        yield f"node pool {', '.join(map(str, pools))}"
    if row.get("deletedAt"):
        yield f"deleted at {row['deletedAt']}"


def events(client: Client, workload: str) -> list[str]:
    """What the cluster said about the workload and its pods, oldest first; none where it cannot be asked."""
    try:
        answer = client.get(f"{WORKLOADS}/{workload}/events", {"limit": 100})
    except BackendError:
        return []
    items = answer.get("events") if isinstance(answer, Mapping) else None
    found = [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []
    found.sort(key=lambda item: str(item.get("createdAt")))
    return [
        f"{item.get('createdAt', '')} {item.get('reason') or ''}: {item.get('message') or ''}".strip() for item in found
    ]


def phases(client: Client, workload: str) -> list[str]:
    """The phases that the workload has gone through, oldest first; none where it cannot be asked."""
    try:
        answer = client.get(f"{WORKLOADS}/{workload}/history", {"limit": 100})
    except BackendError:
        return []
    items = answer.get("records") if isinstance(answer, Mapping) else None
    found = []
    for item in items if isinstance(items, list) else []:
        meta, spec = (item.get(key) if isinstance(item, Mapping) else None for key in ("meta", "spec"))
        update = spec.get("phaseUpdate") if isinstance(spec, Mapping) else None
        if isinstance(meta, Mapping) and isinstance(update, Mapping):
            said = f": {update['phaseMessage']}" if update.get("phaseMessage") else ""
            found.append(f"{meta.get('creationTimestamp', '')} {update.get('phase')}{said}")
    return sorted(found)


def speaks_of_preemption(client: Client, workload: str) -> bool:
    """Whether the events or the history of the workload name a preemption. How they would put it is documented nowhere."""
    return any(_PREEMPTION in line.lower() for line in [*events(client, workload), *phases(client, workload)])
