"""A figure at one level of an axis against another: the ratio, its pairs, and what replicates say of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from reports.contrasts import Compared, Contrast, Grid, Measure, compared, is_number
from reports.resampling import CONFIDENCE, Interval, best_coverage, bootstrap_interval, geometric_mean
from reports.snapshot import Scalar

_AGREE = 0.9
"""Share of pairs that go the way of their mean where too few replicates tell an effect from noise."""


@dataclass(frozen=True)
class Ratio:
    """The larger of two levels against the smaller."""

    contrast: Contrast
    """Turned so that its level has the larger figures, in the geometric mean."""
    pairs: tuple[Compared, ...]
    """One at least."""
    interval: Interval | None
    """Of the mean ratio, over replicates; None where nothing was repeated."""
    is_noise: bool = False
    """Replicates leave it open which of the two is larger."""

    @property
    def mean(self) -> float:
        return geometric_mean([pair.ratio for pair in self.pairs])

    @property
    def is_sure(self) -> bool:
        """There are replicates enough for an interval to mean what it says."""
        return self.interval is not None and best_coverage(self.interval.n) >= CONFIDENCE

    @property
    def agrees(self) -> bool:
        """Nine pairs of ten at least go the same way: of fewer than ten, all."""
        return agree([pair.increase for pair in self.pairs])

    @property
    def most(self) -> float:
        """The relative difference that is not exceeded: by the interval's ends, or by any pair where nothing was repeated."""
        ends = [self.interval.low, self.interval.high] if self.interval else [pair.ratio for pair in self.pairs]
        return max(max(end, 1 / end) for end in ends) - 1


def ratios(grid: Grid, axis: str, measure: Measure) -> list[Ratio]:
    """From each level to the next, where a pair has both figures; what is noise is judged for all of them at once."""
    return _ratios(grid, grid.adjacent(axis), measure)


def every_ratio(grid: Grid, axis: str, measure: Measure) -> list[Ratio]:
    """The same between any two levels."""
    levels = grid.levels(axis)
    every = (grid.contrast(axis, level, other) for other, level in itertools.combinations(levels, 2))
    return _ratios(grid, [one for one in every if one.pairs], measure)


def _ratios(grid: Grid, contrasts: Sequence[Contrast], measure: Measure) -> list[Ratio]:
    confidence = 1 - (1 - CONFIDENCE) / max(len(contrasts), 1)  # Bonferroni: the largest of many is likely to be chance
    found = [_turned(contrast, compared(contrast, measure)) for contrast in contrasts]
    return [
        Ratio(contrast, tuple(pairs), ratio_interval(grid, pairs), _is_noise(ratio_interval(grid, pairs, confidence)))
        for contrast, pairs in found
        if pairs
    ]


def largest(found: Sequence[Ratio], least: float) -> Ratio | None:
    """The largest of those that reach `least` and are no noise.

    Without replicates enough to tell, chance has to be told by its look: pairs that disagree are left out, and so is
    a whole axis of numbers along which the figure goes up as well as down.
    """
    large = [one for one in found if one.mean >= least]
    unsure = [one.contrast for one in large if not one.is_sure]
    if len({_is_upward(one) for one in unsure if is_number(one.level) and is_number(one.reference)}) > 1:
        return None
    real = [one for one in large if not one.is_noise and (one.is_sure or one.agrees)]
    return max(real, key=lambda one: one.mean, default=None)


def agree(increases: Sequence[float]) -> bool:
    """Nine of ten at least are above zero."""
    return sum(increase > 0 for increase in increases) >= _AGREE * len(increases)


def _is_upward(contrast: Contrast) -> bool:
    return float(contrast.level) > float(contrast.reference)  # type: ignore[arg-type]


def ratio_interval(grid: Grid, pairs: Sequence[Compared], confidence: float = CONFIDENCE) -> Interval | None:
    """Of the geometric mean; None with fewer than two replicates."""
    interval = bootstrap_interval(per_replicate(grid, pairs, log_ratio), confidence=confidence)
    if interval is None:
        return None
    return Interval(math.exp(interval.mean), math.exp(interval.low), math.exp(interval.high), interval.n)


def _turned(contrast: Contrast, pairs: list[Compared]) -> tuple[Contrast, list[Compared]]:
    """So that its level has the larger figures."""
    if pairs and geometric_mean([pair.ratio for pair in pairs]) < 1:
        return contrast.swapped(), [Compared(pair.pair[::-1], pair.reference, pair.level) for pair in pairs]
    return contrast, pairs


def _is_noise(interval: Interval | None) -> bool:
    return interval is not None and interval.low <= 1


def per_replicate(grid: Grid, pairs: Sequence[Compared], value: Callable[[Compared], float]) -> list[float]:
    """A figure of each replicate, averaged over the settings of the other axes; one in all without replicates.

    Settings were chosen; replicates are what would come out otherwise next time.
    """
    found: dict[tuple[Scalar, ...], list[float]] = {}
    for pair in pairs:
        replicate = tuple(pair.pair[0].parameters.get(axis) for axis in sorted(grid.replicates))
        found.setdefault(replicate, []).append(value(pair))
    return [fmean(values) for values in found.values()]


def log_ratio(pair: Compared) -> float:
    return math.log(pair.ratio)
