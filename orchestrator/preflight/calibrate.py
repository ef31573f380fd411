"""Predictions corrected by what earlier attempts were seen to take, in this sweep and in older ones.

Of the completed attempts of the same kind the nearest configuration counts: by the sum over all features of |ln(a / b)| for
numbers, and 1 for each word that differs. What the formula says of both scales the one to the other:

    estimate = formula(point) x measured(nearest) / formula(nearest)

At distance 0 that is the measured figure itself. The interval is what was measured of equal configurations, and wider the
farther the nearest one is. Without a formula (a job whose shapes nobody knows) any attempt of its kind speaks for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from orchestrator.ledger import Measurement
from orchestrator.model import Estimate, Forecast, Prediction, Scalar

SPREAD_OF_FEW, SPREAD_OF_MANY = 0.10, 0.05
"""Half width of the interval of one or two measurements, and of more, beyond their own range."""
SPREAD_BY_DISTANCE = 0.25
"""What a distance of 1 (a number e times as large, a word) adds."""
SPREAD_UNKNOWN = 0.5
"""Where nobody knows how a configuration's cost depends on what it says."""
FARTHEST = 3.0
"""Farther than this a measurement says no more than the formula does."""

Reading = Callable[[Measurement], float | None]
"""What was measured of one quantity."""


@dataclass(frozen=True)
class _Near:
    distance: float
    seen: Measurement


def calibrated(prediction: Prediction, pools: Sequence[str], measurements: Sequence[Measurement]) -> Prediction:
    """The prediction with `on` filled from the formula and the measurements.

    Args:
        pools: whose forecasts to give; the empty name for a machine without GPUs.
        measurements: of any kind; completed attempts as the sweep file wanted them.
    """
    same_kind = [seen for seen in measurements if seen.predicted.kind == prediction.kind]
    near = [_Near(distance(prediction.features, seen.predicted.features), seen) for seen in same_kind]
    near = [found for found in near if found.distance <= FARTHEST]
    return replace(prediction, on={pool: _on(prediction, pool, near) for pool in pools})


def distance(one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> float:
    """0 for configurations that cost the same. The number of steps changes what a step costs as little as a seed does."""
    names = (one.keys() | other.keys()) - {"steps"}
    return sum(_apart(one.get(name), other.get(name)) for name in names)


def _apart(a: Scalar, b: Scalar) -> float:
    if a == b:
        return 0.0
    numbers = [
        value for value in (a, b) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    ]
    return abs(math.log(numbers[0] / numbers[1])) if len(numbers) == 2 else 1.0


def _on(prediction: Prediction, pool: str, near: Sequence[_Near]) -> Forecast:
    formula = prediction.formula.get(pool, Forecast())
    here = [found for found in near if (found.seen.pool or "") == pool]
    gpu = _estimate(formula.gpu_bytes, here or near, lambda seen: seen.measured.gpu_bytes, _formula("gpu_bytes"))
    host = _estimate(formula.host_bytes, here or near, lambda seen: seen.measured.host_bytes, _formula("host_bytes"))
    step = _estimate(formula.step_s, here or near, lambda seen: seen.measured.step_s, _formula("step_s"))
    return Forecast(gpu, _least(formula, gpu), host, step, _whole(prediction, formula, step, here or near))


def _estimate(
    formula: Estimate | None, near: Sequence[_Near], read: Reading, by_formula: Callable[[Measurement], Estimate | None]
) -> Estimate | None:
    known = [(found, value) for found in near if (value := read(found.seen)) is not None]
    if not known:
        return formula
    nearest = min(found.distance for found, _ in known)
    values = []
    for found, value in known:
        if found.distance > nearest + 1e-9:
            continue
        theirs = by_formula(found.seen)
        values.append(value * formula.value / theirs.value if formula and theirs and theirs.value else value)
    spread = SPREAD_OF_FEW if len(values) < 3 else SPREAD_OF_MANY
    spread += SPREAD_UNKNOWN if formula is None else SPREAD_BY_DISTANCE * nearest
    basis = "measured" if nearest < 1e-9 and formula is not None else "scaled"
    return Estimate(median(values), min(values) / (1 + spread), max(values) * (1 + spread), basis)


def _formula(name: str) -> Callable[[Measurement], Estimate | None]:
    """What the formula said of the measured attempt, on the pool where it ran."""

    def read(seen: Measurement) -> Estimate | None:
        forecast = seen.predicted.formula.get(seen.pool or "")
        estimate: Estimate | None = getattr(forecast, name) if forecast else None
        return estimate

    return read


def _least(formula: Forecast, gpu: Estimate | None) -> float | None:
    """The formula's, as far off as the peak was; no more than a peak that was really seen to do."""
    if formula.gpu_least_bytes is None or gpu is None or formula.gpu_bytes is None:
        return formula.gpu_least_bytes
    scaled = formula.gpu_least_bytes * gpu.value / formula.gpu_bytes.value
    return min(scaled, gpu.value) if gpu.basis == "measured" else scaled


def _whole(prediction: Prediction, formula: Forecast, step: Estimate | None, near: Sequence[_Near]) -> Estimate | None:
    """Seconds of an attempt: its steps, and what attempts took beside theirs."""
    steps = prediction.features.get("steps")
    beside = [rest for found in near if (rest := _beside_steps(found.seen)) is not None]
    if not isinstance(steps, int) or step is None or not beside:
        whole = _estimate(formula.seconds, near, lambda seen: seen.seconds, _formula("seconds"))
        return whole
    low, high = min(beside) / (1 + SPREAD_OF_FEW), max(beside) * (1 + SPREAD_OF_FEW)
    return Estimate(median(beside) + steps * step.value, low + steps * step.low, high + steps * step.high, step.basis)


def _beside_steps(seen: Measurement) -> float | None:
    if seen.seconds is None or seen.measured.step_s is None:
        return None
    return max(0.0, seen.seconds - seen.measured.steps * seen.measured.step_s)
