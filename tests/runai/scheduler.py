"""Which workload goes to which nodes, and which one has to give way: pure.

Gangs: all pods of a workload start together or none does. Higher priority first, then who came first. A workload that may be
preempted gives way to one of higher priority. Nothing else of the real scheduler is here: no quotas, no fair share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PRIORITIES = {
    "very-low": 25,
    "low": 40,
    "medium-low": 65,
    "medium": 80,
    "medium-high": 90,
    "high": 125,
    "very-high": 150,
}


@dataclass(frozen=True)
class Node:
    name: str
    pool: str
    gpus: int = 8


@dataclass(frozen=True)
class Waiting:
    """A workload without nodes."""

    id: str
    pods: tuple[int, ...]
    """GPUs of each pod."""
    pools: tuple[str, ...]
    """Tried in this order."""
    priority: int
    since: float
    excluded: tuple[str, ...] = ()
    """Nodes that it must not go to."""


@dataclass(frozen=True)
class Placed:
    """A workload with nodes."""

    id: str
    nodes: tuple[str, ...]
    """One a pod."""
    pods: tuple[int, ...]
    priority: int
    preemptible: bool
    since: float
    leaving: bool = False
    """It has been told to give way."""


@dataclass(frozen=True)
class Decision:
    starts: Mapping[str, tuple[str, ...]]
    """Workload -> the node of each of its pods."""
    evicted: tuple[str, ...]


def decide(nodes: Sequence[Node], placed: Sequence[Placed], waiting: Sequence[Waiting]) -> Decision:
    """One round."""
    free = _free(nodes, placed)
    starts: dict[str, tuple[str, ...]] = {}
    evicted: list[str] = []
    for workload in sorted(waiting, key=lambda waits: (-waits.priority, waits.since)):
        chosen = _fit(nodes, free, workload)
        if chosen is not None:
            starts[workload.id] = chosen
            for node, gpus in zip(chosen, workload.pods, strict=True):
                free[node] -= gpus
            continue
        if not any(one.leaving for one in placed) and not evicted:
            evicted = _victims(nodes, placed, workload)
    return Decision(starts, tuple(evicted))


def _free(nodes: Sequence[Node], placed: Sequence[Placed]) -> dict[str, int]:
    free = {node.name: node.gpus for node in nodes}
    for workload in placed:
        for node, gpus in zip(workload.nodes, workload.pods, strict=True):
            if node in free:
                free[node] -= gpus
    return free


def _fit(nodes: Sequence[Node], free: Mapping[str, int], workload: Waiting) -> tuple[str, ...] | None:
    for pool in workload.pools:
        left = {
            node.name: free[node.name] for node in nodes if node.pool == pool and node.name not in workload.excluded
        }
        chosen = []
        for gpus in workload.pods:
            node = next((name for name, count in left.items() if count >= gpus), None)
            if node is None:
                break
            left[node] -= gpus
            chosen.append(node)
        else:
            return tuple(chosen)
    return None


def _victims(nodes: Sequence[Node], placed: Sequence[Placed], workload: Waiting) -> list[str]:
    """The fewest that would have to go, of the lowest priority, the newest first; none where that would not do."""
    weaker = [one for one in placed if one.preemptible and one.priority < workload.priority]
    gone: list[str] = []
    for victim in sorted(weaker, key=lambda one: (one.priority, -one.since)):
        gone.append(victim.id)
        if _fit(nodes, _free(nodes, [one for one in placed if one.id not in gone]), workload) is not None:
            return gone
    return []
