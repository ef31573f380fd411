"""Figures of matched points and their differences, with intervals where there are replicates to draw them from.

A point's figure is the mean over the steps that both of its pair have. With two replicates or more a setting's difference has
a bootstrap interval over them; with one there is none, because steps of one run say nothing about another run.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from reports import metrics
from reports.compare.matching import Key, Matching, Pair
from reports.numbers import gib
from reports.numbers import seconds as in_seconds
from reports.resampling import Interval, bootstrap_interval
from reports.sections.memory import device_peak_bytes, had_gpu, host_peak_bytes
from reports.snapshot import PointSnapshot

Values = Callable[[PointSnapshot], Mapping[int, float]]
"""step -> figure; a figure of the whole run stands under 0."""


@dataclass(frozen=True)
class Measure:
    title: str
    values: Values
    written: Callable[[float], str] | None = None
    """None: as statistics, with common decimals."""


@dataclass(frozen=True)
class Difference:
    """One figure of one setting."""

    setting: Key
    a: float
    """Mean over replicates."""
    b: float
    interval: Interval | None
    """Of B - A over replicates."""
    replicates: int

    @property
    def change(self) -> float:
        return self.b - self.a

    @property
    def ratio(self) -> float | None:
        return self.b / self.a if self.a > 0 and self.b > 0 else None


@dataclass(frozen=True)
class Summary:
    """One figure over all settings: B / A."""

    settings: int
    median: float
    low: float
    """Of the settings, the smallest."""
    high: float
    interval: Interval | None
    """Of the mean logarithm over replicates, each averaged over the settings that all have; as a ratio."""


def _series(names: metrics.Names) -> Values:
    return lambda point: metrics.series(point, names)


def _whole(figure: Callable[[PointSnapshot], float | None]) -> Values:
    def values(point: PointSnapshot) -> Mapping[int, float]:
        found = figure(point)
        return {} if found is None else {0: found}

    return values


def _score_std(point: PointSnapshot) -> Mapping[int, float]:
    return {f.step: f.std for f in point.npz if f.step is not None and f.std is not None and f.error is None}


MEASURES: tuple[Measure, ...] = (
    Measure("`rows`", _series(metrics.ROWS_EMITTED)),
    Measure("`grad_norm`", _series(metrics.GRAD_NORM)),
    Measure("Score std", _score_std),
    Measure("`hessian_solve` (s)", _series(metrics.HESSIAN_SOLVE), in_seconds),
    Measure("`pop_rows` (s)", _series(metrics.POP_ROWS), in_seconds),
    Measure("`update_actor` (s)", _series(metrics.UPDATE_ACTOR), in_seconds),
    Measure("`step` (s)", _series(metrics.STEP), in_seconds),
    Measure("GPU peak (GiB)", _whole(lambda p: device_peak_bytes(p) if had_gpu(p) else None), gib),
    Measure("Host peak (GiB)", _whole(host_peak_bytes), gib),
)


def differences(measure: Measure, matching: Matching) -> list[Difference]:
    """Of every setting in which both sweeps have the figure."""
    found = []
    for setting, pairs in matching.settings.items():
        known = [values for pair in pairs if (values := _values(measure, pair)) is not None]
        if known:
            a, b = (fmean(values) for values in zip(*known, strict=True))
            interval = bootstrap_interval([y - x for x, y in known])
            found.append(Difference(setting, a, b, interval, len(known)))
    return found


def summary(measure: Measure, matching: Matching) -> Summary | None:
    """None where no setting has a ratio."""
    ratios = [d.ratio for d in differences(measure, matching) if d.ratio is not None]
    if not ratios:
        return None
    return Summary(len(ratios), median(ratios), min(ratios), max(ratios), _over_replicates(measure, matching))


def _over_replicates(measure: Measure, matching: Matching) -> Interval | None:
    """Each replicate's mean log ratio over the settings that every replicate has, resampled."""
    logs: dict[Key, dict[Key, float]] = defaultdict(dict)
    for setting, pairs in matching.settings.items():
        for pair in pairs:
            values = _values(measure, pair)
            if pair.replicate and values and min(values) > 0:
                logs[pair.replicate][setting] = math.log(values[1] / values[0])
    shared = set.intersection(*(set(found) for found in logs.values())) if logs else set()
    if not shared:
        return None
    found = bootstrap_interval([fmean(by_setting[key] for key in sorted(shared)) for by_setting in logs.values()])
    if found is None:
        return None
    return Interval(math.exp(found.mean), math.exp(found.low), math.exp(found.high), found.n)


def _values(measure: Measure, pair: Pair) -> tuple[float, float] | None:
    """(A, B): means over the steps that both have; None where there is no such step, or a figure is no number."""
    a, b = measure.values(pair.a), measure.values(pair.b)
    steps = sorted(a.keys() & b.keys())
    both: Sequence[float] = [fmean(side[step] for step in steps) for side in (a, b)] if steps else []
    return (both[0], both[1]) if both and all(map(math.isfinite, both)) else None
