"""Intervals and tests for a few paired differences: bootstrap, sign flips, Holm. Pure functions, seeded, numpy alone.

Replicates are few, often three. Two bounds hold then, whatever the data, and the report states them:

- A bootstrap interval of a mean lies within the smallest and the largest difference. The true mean of a symmetric
  distribution lies outside of those with probability 2^(1-n): no bootstrap interval of fewer than six differences reaches 95%.
- A test by sign flips knows 2^n outcomes, so its p is never below 2^(1-n): 0.25 with three differences.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 20_260_222
"""Any number; it is fixed so that the same figures give the same report."""
_MOST_ENUMERATED = 14
"""Differences up to which all 2^n sign flips are counted; beyond, `RESAMPLES` of them are drawn."""
_BLOCK = 1 << 20
"""Drawn figures held at once."""


@dataclass(frozen=True)
class Interval:
    """A mean and what is known of it."""

    mean: float
    low: float
    high: float
    n: int
    """Differences it stands on."""


def bootstrap_interval(values: Sequence[float], *, confidence: float = CONFIDENCE, seed: int = SEED) -> Interval | None:
    """BCa bootstrap interval of the mean; None with fewer than two values.

    Bias-corrected and accelerated, Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 14.3. Where all
    values are equal it is that value.
    """
    import numpy as np

    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2:
        return None
    mean = float(data.mean())
    spread = data - mean
    if not np.any(np.abs(spread) > 1e-12 * max(abs(mean), 1e-300)):
        return Interval(mean, mean, mean, len(data))
    means = np.sort(_resampled_means(data, seed))
    below = (
        float((means < mean).mean()) + float((means <= mean).mean())
    ) / 2  # ties count half: resamples of few repeat
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(below, 0.5 / RESAMPLES), 1 - 0.5 / RESAMPLES))
    # jackknife of a mean: its deviations are those of the values, times -1/(n-1)
    acceleration = float((spread**3).sum()) / (6 * float((spread**2).sum()) ** 1.5)
    low, high = (
        _quantile(means, _adjusted(normal.inv_cdf(level), bias, acceleration))
        for level in ((1 - confidence) / 2, (1 + confidence) / 2)
    )
    return Interval(mean, low, high, len(data))


def sign_flip_p(values: Sequence[float], *, seed: int = SEED) -> float | None:
    """Two-sided p of "the mean is zero", by flipping signs; None with fewer than two values.

    Exact where differences are symmetric around zero under that hypothesis (Fisher's randomisation test). All 2^n flips up to
    14 values; beyond, drawn ones, the observed among them (Phipson and Smyth 2010), so that p is never zero.
    """
    import numpy as np

    data = np.asarray(values, dtype=np.float64)
    n = len(data)
    if n < 2:
        return None
    observed = abs(float(data.sum())) * (1 - 1e-12)  # sums in another order differ in their last digits
    if n <= _MOST_ENUMERATED:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
        return float((np.abs(signs @ data) >= observed).mean())
    signs = np.random.default_rng(seed).choice((1.0, -1.0), size=(RESAMPLES, n))
    return float(((np.abs(signs @ data) >= observed).sum() + 1) / (RESAMPLES + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p of a family of tests, in the given order (Holm 1979): steps down, monotone, 1 at most."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def best_coverage(n: int) -> float:
    """The most that a bootstrap interval of n symmetric differences can cover: 1 - 2^(1-n)."""
    return 1 - 2.0 ** (1 - n)


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive values."""
    return math.exp(fmean(math.log(value) for value in values))


def _resampled_means(data: NDArray[Any], seed: int) -> NDArray[Any]:
    """float64 [RESAMPLES]: means of samples with replacement."""
    import numpy as np

    generator, n = np.random.default_rng(seed), len(data)
    rows = max(1, _BLOCK // n)
    blocks = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    return np.concatenate([data[generator.integers(n, size=(count, n))].mean(axis=1) for count in blocks])


def _adjusted(z: float, bias: float, acceleration: float) -> float:
    """The level at which BCa reads the bootstrap distribution."""
    shifted = bias + z
    scale = 1 - acceleration * shifted
    if scale <= 0:  # so skewed that the formula leaves the distribution
        return 1.0 if shifted > 0 else 0.0
    return NormalDist().cdf(bias + shifted / scale)


def _quantile(ordered: NDArray[Any], level: float) -> float:
    import numpy as np

    return float(np.quantile(ordered, min(max(level, 0.0), 1.0)))
