"""What Run:ai says about one workload, for people: phase, pods, what the scheduler waits for, the last events."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.backends.runai import observation
from orchestrator.backends.runai.client import Client
from orchestrator.backends.runai.faults import Refused, Unauthorized, one_line
from orchestrator.errors import OrchestratorError

WORKLOADS = "/api/v1/workloads"
LAST_EVENTS = 6
LAST_PHASES = 3
_PREEMPTED = re.compile(r"\bpreempted\b|\bpreemptionby", re.IGNORECASE)
"""`Non-preemptible workload is over quota` and `No preemption victims found` say of what waits why it does."""


def describe(client: Client, workload: str) -> list[str]:
    """One fact a line, the present first.

    Raises:
        BackendError: the workload itself cannot be asked for.
    """
    row = client.get(f"{WORKLOADS}/{workload}")
    happened = []
    for kind, ask, last in (("phase", phases, LAST_PHASES), ("event", events, LAST_EVENTS)):
        try:
            happened += [f"{kind}: {line}" for line in ask(client, workload)[-last:]]
        except OrchestratorError as error:
            happened.append(f"{kind}s cannot be asked for now: {error}")
    return [*_state(row), *happened]


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
    """What the cluster said about the workload and its pods, oldest first; none where nobody may ask.

    Raises:
        OrchestratorError: it could not be asked now.
    """
    items = _items(client, f"{WORKLOADS}/{workload}/events", "events")
    found = sorted(items, key=lambda item: str(item.get("createdAt")))
    return [
        one_line(f"{item.get('createdAt', '')} {item.get('reason') or ''}: {item.get('message') or ''}")
        for item in found
    ]


def phases(client: Client, workload: str) -> list[str]:
    """The phases that the workload has gone through, oldest first; none where nobody may ask.

    Raises:
        OrchestratorError: it could not be asked now.
    """
    found = []
    for item in _items(client, f"{WORKLOADS}/{workload}/history", "records"):
        meta, spec = item.get("meta"), item.get("spec")
        update = spec.get("phaseUpdate") if isinstance(spec, Mapping) else None
        if isinstance(meta, Mapping) and isinstance(update, Mapping):
            said = f": {update['phaseMessage']}" if update.get("phaseMessage") else ""
            found.append(one_line(f"{meta.get('creationTimestamp', '')} {update.get('phase')}{said}"))
    return sorted(found)


def _items(client: Client, path: str, key: str) -> list[Mapping[str, Any]]:
    try:
        answer = client.get(path, {"limit": 100})
    except Unauthorized:
        raise
    except Refused:
        return []
    items = answer.get(key) if isinstance(answer, Mapping) else None
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def speaks_of_preemption(client: Client, workload: str) -> bool:
    """Whether the events or the history of the workload say that it was preempted. How they put it is documented nowhere.

    Raises:
        OrchestratorError: they could not be asked for now.
    """
    return any(_PREEMPTED.search(line) for line in [*events(client, workload), *phases(client, workload)])
