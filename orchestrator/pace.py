"""How long attempts of a sweep take, and all of it still will: measured where it was, else predicted. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import Estimate, Verdict
from orchestrator.placement import settings

AT_LEAST = 0.1
"""No interval is narrower than this share to either side: two measurements may agree by chance."""


@dataclass(frozen=True)
class Pace:
    """Seconds of one attempt, from those that ended."""

    alike: dict[Hashable, list[float]]
    """By settings and pool."""
    ended: list[float]
    ratios: list[float]
    """What completed attempts took, as a share of what was predicted for them."""

    @classmethod
    def of(cls, view: View) -> Pace:
        completed: list[tuple[PointRow, AttemptRow, float]] = []
        others: list[float] = []
        for point in view.points:
            for attempt in view.history(point):
                if attempt.started_at is None or attempt.ended_at is None:
                    continue
                took = attempt.ended_at - attempt.started_at
                if attempt.verdict is Verdict.COMPLETED:
                    completed.append((point, attempt, took))
                else:
                    others.append(took)
        alike: dict[Hashable, list[float]] = defaultdict(list)
        for point, attempt, took in completed:
            alike[_key(point, attempt.pool)].append(took)
        foretold = [(took, predicted_seconds(point, attempt.pool)) for point, attempt, took in completed]
        ratios = [took / guess.value for took, guess in foretold if guess and guess.value > 0]
        return cls(alike, [took for _, _, took in completed] or others, ratios)

    def seconds(self, point: PointRow, pool: str | None) -> Estimate | None:
        """Of one attempt of `point`: as the same settings took; else as predicted, corrected by how right the predictions
        were; else as any took."""
        if same := self.alike.get(_key(point, pool)):
            return _spread(same)
        if guess := predicted_seconds(point, pool):
            factors = sorted(self.ratios) or [1.0]
            middle = median(factors)
            low, high = (
                min(guess.low * middle, guess.value * factors[0]),
                max(guess.high * middle, guess.value * factors[-1]),
            )
            return Estimate(guess.value * middle, low, high, guess.basis)
        return _spread(self.ended) if self.ended else None


def _key(point: PointRow, pool: str | None) -> Hashable:
    return (tuple(sorted((name, repr(value)) for name, value in settings(point).items())), pool)


def predicted_seconds(point: PointRow, pool: str | None) -> Estimate | None:
    forecast = point.predicted.on.get(pool or "") if point.predicted else None
    return forecast.seconds if forecast else None


def _spread(seconds: Sequence[float]) -> Estimate:
    return Estimate(sum(seconds) / len(seconds), min(seconds), max(seconds), "measured")


def less(whole: Estimate, elapsed_s: float) -> Estimate:
    """What is left of an attempt after so long."""
    value, low, high = (max(0.0, part - elapsed_s) for part in (whole.value, whole.low, whole.high))
    return Estimate(value, low, high, whole.basis)


def by_steps(elapsed_s: float, step: int, steps: int, step_s: float | None) -> Estimate | None:
    """What is left of an attempt by its own steps; None before the first.

    Args:
        step_s: median seconds of a step, once there were two.
    """
    left = max(0, steps - step)
    if step <= 0:
        return None
    if step_s is not None:  # some of the present step is done
        return Estimate(max(0.0, left - 0.5) * step_s, max(0.0, left - 1.0) * step_s, left * step_s, "measured")
    mean = elapsed_s / step  # the start of the job is in it
    return Estimate(left * mean, left * mean / 2, left * mean, "measured")


def together(running: Sequence[Estimate], waiting: Sequence[Estimate], max_parallel: int) -> Estimate:
    """Until all are done, when so many run at once: the work shared out evenly, but no less than the longest."""
    slots = max(1, min(max_parallel, len(running) + len(waiting)))

    def left(part: str) -> float:
        alone = [getattr(one, part) for one in (*running, *waiting)]
        return float(max(sum(alone) / slots, max(alone, default=0.0)))

    value = left("value")
    return Estimate(
        value, min(left("low"), value * (1 - AT_LEAST)), max(left("high"), value * (1 + AT_LEAST)), "measured"
    )
