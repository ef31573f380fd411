"""What can be read from a histogram of scores: quantiles, and how much lies in the tails.

A histogram is a tuple of (from, to, how many), ascending. Within a bin the scores are taken to be spread evenly, so a figure
is off by the width of one bin at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

Bin = tuple[float, float, int]


def quantile(histogram: Sequence[Bin], share: float) -> float | None:
    """The score below which `share` (0 to 1) of all lie; None of an empty histogram."""
    total = sum(count for _, _, count in histogram)
    if not total:
        return None
    below, wanted = 0, share * total
    for low, high, count in histogram:
        if below + count >= wanted:
            return low + (high - low) * max(wanted - below, 0) / count
        below += count
    return histogram[-1][1]


def upper_tail(histogram: Sequence[Bin]) -> list[tuple[float, float]]:
    """(x, share of all scores that are at least x) at the lower edges of the bins above zero, ascending in x."""
    total = sum(count for _, _, count in histogram)
    above = [item for item in histogram if item[0] > 0]
    held = list(accumulate(count for _, _, count in reversed(above)))
    return [(low, number / total) for (low, _, _), number in zip(above, reversed(held), strict=True)]


def lower_tail(histogram: Sequence[Bin]) -> list[tuple[float, float]]:
    """(x, share of all scores that are at most -x), ascending in x > 0."""
    return upper_tail([(-high, -low, count) for low, high, count in reversed(histogram)])
