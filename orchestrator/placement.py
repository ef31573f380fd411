"""On which pool of the ladder a point starts: the smallest that is not known to be too small for it. Pure.

Two things tell. The prediction: a card that cannot hold what the job needs at least is skipped. And other points: where one
of the same or a smaller footprint ran out of GPU memory, this one would too, unless a point at least as large as this one
completed there. What is unknown holds nothing up: the point starts on the first pool, and the retry policy climbs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator.ledger import AttemptRow, Measurement, PointRow, View
from orchestrator.model import Forecast, Point, Pool, Prediction, Verdict
from orchestrator.preflight.calibrate import calibrated

GIB = 1024**3
MIB = 1024**2


@dataclass(frozen=True)
class Placement:
    pool: str | None
    """None where there is no ladder."""
    why: str | None = None
    """What sent it to a larger pool than the first."""


@dataclass(frozen=True)
class Lessons:
    """What the sweep's attempts have shown of its pools so far, by pool."""

    too_small: dict[str, list[PointRow]] = field(default_factory=dict)
    """Points that ran out of GPU memory there."""
    large_enough: dict[str, list[PointRow]] = field(default_factory=dict)
    """Points that completed there, as the sweep file wants them."""

    @classmethod
    def of(cls, view: View) -> Lessons:
        found = cls()
        for point in view.points:
            for attempt in view.history(point):
                if attempt.pool is not None and not attempt.superseded:
                    found._learn(point, attempt, attempt.pool)
        return found

    def _learn(self, point: PointRow, attempt: AttemptRow, pool: str) -> None:
        if attempt.verdict is Verdict.GPU_OOM:
            self.too_small.setdefault(pool, []).append(point)
        elif attempt.verdict is Verdict.COMPLETED and not attempt.patch:
            self.large_enough.setdefault(pool, []).append(point)

    def against(self, point: PointRow, pool: str) -> PointRow | None:
        """A point that ran out of memory on `pool` and says that this one would; None: nothing says so."""
        warned = next((other for other in self.too_small.get(pool, ()) if _at_least(point, other)), None)
        if warned is None or any(_at_least(other, point) for other in self.large_enough.get(pool, ())):
            return None
        return warned


def place(point: PointRow, ladder: Sequence[Pool], lessons: Lessons, *, by_prediction: bool) -> Placement:
    """Where the first attempt of a point runs, or at least how far up a later one starts."""
    predicted = (
        forecast_pool(point.predicted, ladder) if by_prediction else Placement(ladder[0].name if ladder else None)
    )
    at = next((n for n, pool in enumerate(ladder) if pool.name == predicted.pool), 0)
    why = predicted.why
    while at + 1 < len(ladder) and (other := lessons.against(point, ladder[at].name)):
        why = f"{other.name}, {_compared(point, other)}, ran out of GPU memory on {ladder[at].name}"
        at += 1
    return Placement(ladder[at].name if ladder else None, why)


def sharpened(point: PointRow, view: View, ladder: Sequence[Pool]) -> PointRow:
    """The point with its prediction corrected by what this sweep's completed attempts were seen to take."""
    if point.predicted is None or len(ladder) < 2:
        return point
    seen = [
        Measurement(peer.predicted, attempt.pool, None, attempt.measured)
        for peer in view.points
        for attempt in view.history(peer)
        if peer.predicted and attempt.measured and attempt.verdict is Verdict.COMPLETED and not attempt.patch
    ]
    if not seen:
        return point
    return replace(point, predicted=calibrated(point.predicted, [pool.name for pool in ladder], seen))


def forecast_pool(predicted: Prediction | None, ladder: Sequence[Pool]) -> Placement:
    """The first pool whose card holds what the job needs at least, as predicted; the last one where none does."""
    why = None
    for pool in ladder:
        least = _least(predicted, pool)
        if least is None or pool.memory_mib is None or least <= pool.memory_mib * MIB or pool is ladder[-1]:
            return Placement(pool.name, why)
        why = f"predicted to need {least / GIB:.0f} GiB a card, and {pool.name} has {pool.memory_mib * MIB / GIB:.0f}"
    return Placement(None)


def fits(predicted: Prediction | None, pool: Pool) -> bool | None:
    """Whether a card of the pool is expected to hold the job; None: unknown."""
    least = _least(predicted, pool)
    return None if least is None or pool.memory_mib is None else least <= pool.memory_mib * MIB


def _least(predicted: Prediction | None, pool: Pool) -> float | None:
    forecast: Forecast | None = predicted.on.get(pool.name) if predicted else None
    return forecast.gpu_least_bytes if forecast else None


def settings(point: PointRow | Point) -> dict[str, object]:
    """The parameters without the replicate axes, which change no cost."""
    return {name: value for name, value in point.parameters.items() if name not in point.replicate}


def _at_least(point: PointRow, other: PointRow) -> bool:
    """Whether `point` has the same or a larger footprint than `other`; False where that is not known."""
    if settings(point) == settings(other):
        return True
    mine, theirs = _footprint(point), _footprint(other)
    return mine is not None and theirs is not None and mine >= theirs * (1 - 1e-9)


def _footprint(point: PointRow) -> float | None:
    return point.predicted.footprint_bytes if point.predicted else None


def _compared(point: PointRow, other: PointRow) -> str:
    mine, theirs = _footprint(point), _footprint(other)
    if mine is None or theirs is None or settings(point) == settings(other):
        return "of the same settings"
    return f"predicted at {theirs / GIB:.0f} GiB to this one's {mine / GIB:.0f}"
