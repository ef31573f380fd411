"""y = c x^a fitted by least squares on logarithms: how time grows with the projection's size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class PowerLaw:
    """What was fitted to n points."""

    exponent: float
    error: float | None
    """Standard error of the exponent; None with two points, through which a line always goes."""
    coefficient: float
    """y at x = 1."""
    n: int

    def at(self, x: float) -> float:
        return self.coefficient * math.pow(x, self.exponent)


def fit_power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw | None:
    """Ordinary least squares of log y on log x, every point weighing the same.

    None with fewer than two different x, or where a value is not a positive finite number (a logarithm has to exist).

    Raises:
        ValueError: x and y differ in length.
    """
    pairs = list(zip(x, y, strict=True))
    if len({first for first, _ in pairs}) < 2 or not all(0 < value < math.inf for pair in pairs for value in pair):
        return None
    xs, ys = [math.log(first) for first, _ in pairs], [math.log(second) for _, second in pairs]
    middle_x, middle_y = fmean(xs), fmean(ys)
    square = sum((value - middle_x) ** 2 for value in xs)
    exponent = sum((a - middle_x) * (b - middle_y) for a, b in zip(xs, ys, strict=True)) / square
    rest = [b - middle_y - exponent * (a - middle_x) for a, b in zip(xs, ys, strict=True)]
    freedom = len(pairs) - 2
    error = math.sqrt(sum(value**2 for value in rest) / freedom / square) if freedom else None
    return PowerLaw(exponent, error, math.exp(middle_y - exponent * middle_x), len(pairs))
