"""How long things usually take in a sweep, by its own history: what an attempt that hangs is told apart by. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from orchestrator.ledger import Measured, PointRow, View
from orchestrator.model import Verdict
from orchestrator.placement import settings


@dataclass(frozen=True)
class Usual:
    """Seconds; None: the sweep has no history yet."""

    step_s: float | None = None
    start_s: float | None = None
    """From the start of a job to the end of its first step."""


NOTHING_USUAL = Usual()


def usual(view: View, point: PointRow, pool: str | None) -> Usual:
    """What an attempt of `point` on `pool` may be expected to take.

    The median over completed attempts of the same settings on the same pool. Without those, the longest of what the others
    took, each scaled by what is predicted for the two: for telling a hang, too long is the safe side.
    """
    like: list[Measured] = []
    others: list[tuple[float, Measured]] = []
    for peer in view.points:
        for attempt in view.history(peer):
            if attempt.verdict is not Verdict.COMPLETED or attempt.measured is None:
                continue
            if attempt.pool == pool and settings(peer) == settings(point):
                like.append(attempt.measured)
            else:
                others.append((_times_longer(point, pool, peer, attempt.pool), attempt.measured))
    return Usual(
        step_s=_middle([seen.step_s for seen in like]) or _longest([(r, seen.step_s) for r, seen in others]),
        start_s=_middle([seen.start_s for seen in like]) or _longest([(r, seen.start_s) for r, seen in others]),
    )


def _times_longer(point: PointRow, pool: str | None, peer: PointRow, peer_pool: str | None) -> float:
    """How many times as long a step is by formula; 1 where nobody knows, and never less than 1."""
    mine, theirs = _formula_step(point, pool), _formula_step(peer, peer_pool)
    return max(1.0, mine / theirs) if mine and theirs else 1.0


def _formula_step(point: PointRow, pool: str | None) -> float | None:
    forecast = point.predicted.formula.get(pool or "") if point.predicted else None
    return forecast.step_s.value if forecast and forecast.step_s else None


def _middle(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _longest(scaled: list[tuple[float, float | None]]) -> float | None:
    return max((ratio * value for ratio, value in scaled if value is not None), default=None)
