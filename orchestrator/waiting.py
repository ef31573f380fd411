"""What of a sweep waits, and for what: the rules of `plan`, in words. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.budget import spent, worst_seconds
from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import AttemptState, PointState
from orchestrator.plan import Limits

WAITS = "waits: "
"""+ reason: how an event begins that says what the scheduler lets a job wait for."""


@dataclass(frozen=True)
class Waiting:
    """Points that wait for the same thing."""

    why: str
    points: tuple[str, ...]
    """Their names, in the order of the sweep file."""


def waiting(view: View, limits: Limits, now: float, said: Mapping[str, str] | None = None) -> tuple[Waiting, ...]:
    """Everything that is neither settled nor running, by reason.

    Args:
        said: the scheduler's own reasons, by the attempt's token.
    """
    by_reason: dict[str, list[str]] = {}
    active = sum(point.state is PointState.ACTIVE for point in view.points)
    money = spent(view, limits.gpus_per_attempt, limits.time_limit_s, now)
    left = math.inf if limits.gpu_hours is None else limits.gpu_hours - money.used - money.ahead
    for point in view.points:
        history = view.history(point)
        why = None
        if point.state is PointState.ACTIVE and history:
            why = _active(history, now, said or {})
        elif point.state in (PointState.PLANNED, PointState.READY):
            why = _idle(point, history, limits, active, left, now)
        if why is not None:
            by_reason.setdefault(why, []).append(point.name)
    return tuple(Waiting(why, tuple(names)) for why, names in by_reason.items())


def _active(history: Sequence[AttemptRow], now: float, said: Mapping[str, str]) -> str | None:
    attempt = history[-1]
    match attempt.state:
        case AttemptState.CREATED if attempt.deferrals:
            return f"the backend had no room {attempt.deferrals} times; asked again{_in(attempt.not_before, now)}"
        case AttemptState.CREATED | AttemptState.SUBMITTING:
            return "being submitted"
        case AttemptState.UNCERTAIN:
            return "it is not known whether the backend took it; looked up by name"
        case AttemptState.SUBMITTED | AttemptState.QUEUED:
            reason = said.get(attempt.token)
            return f"queued: {reason}" if reason else "queued"
        case AttemptState.RUNNING:
            return None
    return "over, being judged"


def _idle(point: PointRow, history: Sequence[AttemptRow], limits: Limits, active: int, left: float, now: float) -> str:
    again = f"{point.reason}; " if history and point.reason else ""
    if point.not_before is not None and now < point.not_before:
        return f"{again}tried again{_in(point.not_before, now)}"
    if active >= limits.max_parallel:
        return f"{again}{active} run, budget.max_parallel is {limits.max_parallel}"
    pool = history[-1].pool if history else next((pool.name for pool in limits.ladder), None)
    worst = (worst_seconds(point, pool, limits.time_limit_s) or 0.0) * limits.gpus_per_attempt / 3600
    if worst > left:
        return (
            f"{again}{max(0.0, left):.1f} GPU-hours of the budget are not spoken for, an attempt may take {worst:.1f}"
        )
    return f"{again}next to start"


def _in(moment: float | None, now: float) -> str:
    """Rounded to what does not change at every look."""
    if moment is None or moment <= now:
        return ""
    seconds = moment - now
    return f" in {math.ceil(seconds / 60)} min" if seconds > 90 else f" in {math.ceil(seconds / 10) * 10} s"
