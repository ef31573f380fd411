"""A histogram of scores in one pass: bins whose width grows with the magnitude, on both sides of zero.

Influence scores have tails: a standard deviation of 0.2 beside a smallest score of -265 is usual, and nobody knows the range
before the file is read. Five bins a decade of magnitude show the centre and the tails at once, a quantile read from them is
off by the ratio of one bin at most, and counts of blocks add up.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bin = tuple[float, float, int]
"""From, to (exclusive but for the last), how many scores."""

_PER_DECADE = 5
_DECADES = (-12, 12)
"""Powers of ten between which magnitudes are told apart; smaller ones are one bin around zero."""
_KEPT_DECADES = 8
"""Bins of magnitudes this far below the largest are joined with the one around zero: a file's histogram stays small."""


def _edges() -> tuple[float, ...]:
    """Ascending, symmetric around zero, three digits each: what is printed is what was used."""
    low, high = (decade * _PER_DECADE for decade in _DECADES)
    magnitudes = [float(f"{10 ** (step / _PER_DECADE):.2e}") for step in range(low, high + 1)]
    positive = (*magnitudes, sys.float_info.max)
    return (*(-edge for edge in reversed(positive)), *positive)


EDGES = _edges()
"""[bins + 1]; the outermost are the largest float64."""


class ScoreBins:
    """Counts over blocks."""

    def __init__(self) -> None:
        self._counts = [0] * (len(EDGES) - 1)

    def add(self, values: NDArray[Any]) -> None:
        """`values`: float64 [n], finite."""
        import numpy as np

        places = np.searchsorted(np.array(EDGES), values, side="right") - 1
        found = np.bincount(np.minimum(places, len(self._counts) - 1), minlength=len(self._counts))
        self._counts = [old + int(new) for old, new in zip(self._counts, found, strict=True)]

    def histogram(self) -> tuple[Bin, ...]:
        """Ascending bins that hold something, the small magnitudes joined; their counts add up to the scores added."""
        held = [place for place, count in enumerate(self._counts) if count]
        if not held:
            return ()
        floor = _joined_below(max(-EDGES[held[0]], EDGES[held[-1] + 1]))
        small = [place for place in held if -floor <= EDGES[place] and EDGES[place + 1] <= floor]
        joined = [(-floor, floor, sum(self._counts[place] for place in small))] if small else []
        rest = [(EDGES[place], EDGES[place + 1], self._counts[place]) for place in held if place not in small]
        return tuple(sorted([*rest, *joined]))


def _joined_below(largest: float) -> float:
    """The edge below which magnitudes are joined, given the outer edge of the largest that occurs."""
    least = math.log10(largest) - _KEPT_DECADES
    positive = [edge for edge in EDGES if edge > 0]
    return max((edge for edge in positive if math.log10(edge) <= least + 1e-9), default=positive[0])
