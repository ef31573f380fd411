"""What is worth telling somebody who is not looking: which messages a sweep has earned. Pure.

A message has a key. What was sent is on record in the store's events under its key, so that a sweep that is resumed, or
driven by another process, says nothing twice; what happens anew (a point that was run again and failed again) has a new one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.ledger import EventRow, PointRow, View
from orchestrator.model import PointState

FINISHED, POINT_FAILED, STOPPED = "finished", "point_failed", "stopped"
SENT = "notified: "
"""How the event of a message that was sent begins; its key follows."""


@dataclass(frozen=True)
class Notice:
    key: str
    title: str
    body: str
    point: str | None = None


def sent_keys(events: Sequence[EventRow]) -> set[str]:
    return {event.detail.removeprefix(SENT) for event in events if event.detail and event.detail.startswith(SENT)}


def while_running(sweep: str, view: View, kinds: Collection[str]) -> list[Notice]:
    """Points that failed for good, and why the sweep starts no more of them."""
    found = []
    if POINT_FAILED in kinds:
        found += [_failed(sweep, point, view) for point in view.points if point.state is PointState.FAILED]
    blocked = [point for point in view.points if point.state is PointState.BLOCKED]
    if STOPPED in kinds and blocked:
        reason = blocked[0].reason or "no reason on record"
        waiting = f"{len(blocked)} point{'s' * (len(blocked) > 1)} will not start: {', '.join(_names(blocked))}"
        found.append(Notice(f"{STOPPED} {_attempts(view)}", f"{sweep} stopped", f"{reason}. {waiting}"))
    return found


def at_the_end(sweep: str, view: View, kinds: Collection[str], report: str) -> list[Notice]:
    """The sweep is settled; one that stopped has said so already.

    Args:
        report: where the report lies.
    """
    if FINISHED not in kinds or any(point.state is PointState.BLOCKED for point in view.points):
        return []
    states = Counter(point.state for point in view.points if point.state is not PointState.SKIPPED)
    counted = ", ".join(f"{number} {state.value}" for state, number in sorted(states.items()))
    return [Notice(f"{FINISHED} {_attempts(view)}", f"{sweep} finished", f"{counted}. Report: {report}")]


def _failed(sweep: str, point: PointRow, view: View) -> Notice:
    tries = len(view.history(point))
    said = f"{point.reason or 'no reason on record'} ({tries} attempt{'s' * (tries != 1)})"
    return Notice(f"{POINT_FAILED} {point.id} {tries}", f"{sweep}: {point.name} failed", said, point.id)


def _attempts(view: View) -> int:
    """Grows with whatever happens in a sweep, and with nothing else."""
    return sum(len(view.history(point)) for point in view.points)


def _names(points: Sequence[PointRow], most: int = 5) -> list[str]:
    names = [point.name for point in points[:most]]
    return [*names, f"{len(points) - most} more"] if len(points) > most else names
