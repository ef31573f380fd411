"""GPU-hours of a sweep over all its pools: what is used, and what the attempts that run may still take. Pure.

The worst case of an attempt is its time limit; without one, the upper end of what is predicted for it; where that is not known
either, nothing is set aside for it, and the budget can only be noticed once it is used up.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.ledger import AttemptRow, PointRow, View


@dataclass(frozen=True)
class Spent:
    """GPU-hours."""

    used: float
    """By all attempts so far; one that runs counts up to now."""
    ahead: float
    """At most, of the attempts that are under way, beyond that."""


def spent(view: View, gpus: int, time_limit_s: float | None, now: float) -> Spent:
    """Args: gpus of one attempt; its time limit in seconds, where there is one."""
    used = ahead = 0.0
    for point in view.points:
        for attempt in view.history(point):
            elapsed = _elapsed(attempt, now)
            used += elapsed
            if attempt.state.is_live:
                worst = worst_seconds(point, attempt.pool, time_limit_s)
                ahead += max(0.0, worst - elapsed) if worst is not None else 0.0
    return Spent(used * gpus / 3600, ahead * gpus / 3600)


def worst_seconds(point: PointRow, pool: str | None, time_limit_s: float | None) -> float | None:
    """What one attempt of a point may take at most, as far as that is known."""
    if time_limit_s is not None:
        return time_limit_s
    forecast = point.predicted.on.get(pool or "") if point.predicted else None
    return forecast.seconds.high if forecast and forecast.seconds else None


def _elapsed(attempt: AttemptRow, now: float) -> float:
    if attempt.started_at is None:
        return 0.0
    return max(0.0, (attempt.ended_at if attempt.ended_at is not None else now) - attempt.started_at)
