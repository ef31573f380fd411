"""Points that differ in one axis alone, and figures compared over them.

Only points that succeeded as the sweep file has them are compared: one that the retry policy changed is another experiment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from reports.sections.patches import is_patched
from reports.sections.points import scalar, varying_axes
from reports.snapshot import PointSnapshot, Scalar, SweepSnapshot

Measure = Callable[[PointSnapshot], float | None]
"""One figure of a point; None where it is not known."""
Pair = tuple[PointSnapshot, PointSnapshot]


@dataclass(frozen=True)
class Contrast:
    """Two levels of one axis."""

    axis: str
    level: Scalar
    reference: Scalar
    pairs: tuple[Pair, ...]
    """(with the level, with the reference), equal in every other parameter, replicates included."""

    def swapped(self) -> Contrast:
        return Contrast(self.axis, self.reference, self.level, tuple((b, a) for a, b in self.pairs))


@dataclass(frozen=True)
class Compared:
    """One figure of a pair."""

    pair: Pair
    level: float
    reference: float

    @property
    def ratio(self) -> float:
        return self.level / self.reference

    @property
    def increase(self) -> float:
        return self.level - self.reference


@dataclass(frozen=True)
class Grid:
    """The points of a sweep that can be compared, by the axes that they differ in."""

    snapshot: SweepSnapshot
    points: tuple[PointSnapshot, ...]
    axes: tuple[str, ...]
    """With more than one level, replicate axes included; without a name that only one point has."""
    replicates: frozenset[str]

    @classmethod
    def of(cls, snapshot: SweepSnapshot) -> Self:
        axes = tuple(varying_axes(snapshot))
        points = tuple(point for point in snapshot.points if point.state == "succeeded" and not is_patched(point))
        return cls(snapshot, points, axes, frozenset(name for point in points for name in point.replicate))

    @property
    def factors(self) -> list[str]:
        """Axes that are no replicate's."""
        return [axis for axis in self.axes if axis not in self.replicates]

    @property
    def repeats(self) -> int:
        """How often settings were run, with a seed each; 1 without replicates."""
        return len({tuple(point.parameters.get(axis) for axis in sorted(self.replicates)) for point in self.points})

    def levels(self, axis: str) -> list[Scalar]:
        """Numbers descending (a smaller factor is the larger projection), else as listed."""
        found = list(dict.fromkeys(point.parameters[axis] for point in self.points if axis in point.parameters))
        return sorted(found, reverse=True, key=_number) if all(map(is_number, found)) else found

    def contrast(self, axis: str, level: Scalar, reference: Scalar) -> Contrast:
        """All pairs of one level with another."""
        held = {self.key(point, axis): point for point in self._at(axis, reference)}
        found = ((point, held.get(self.key(point, axis))) for point in self._at(axis, level))
        return Contrast(axis, level, reference, tuple((point, other) for point, other in found if other is not None))

    def adjacent(self, axis: str) -> list[Contrast]:
        """Each level of numbers against the one before it; of other levels, each against the first."""
        found = self.levels(axis)
        references = found if all(map(is_number, found)) else found[:1] * len(found)
        every = (self.contrast(axis, level, other) for level, other in zip(found[1:], references, strict=False))
        return [one for one in every if one.pairs]

    def groups(self, axis: str) -> list[list[PointSnapshot]]:
        """Points that are equal in all but this axis and the replicates, in the sweep's order."""
        found: dict[tuple[str, ...], list[PointSnapshot]] = {}
        for point in self.points:
            if axis in point.parameters:
                found.setdefault(self.key(point, axis, *self.replicates), []).append(point)
        return list(found.values())

    def key(self, point: PointSnapshot, *without: str) -> tuple[str, ...]:
        """`axis=value` of the axes but some; equal keys are equal settings."""
        return tuple(
            f"{axis}={scalar(point.parameters[axis])}"
            for axis in self.axes
            if axis not in without and axis in point.parameters
        )

    def setting(self, point: PointSnapshot, *without: str) -> str:
        """The same for people; empty where no axis is left."""
        return ", ".join(self.key(point, *without))

    def _at(self, axis: str, level: Scalar) -> list[PointSnapshot]:
        return [p for p in self.points if axis in p.parameters and p.parameters[axis] == level]


def compared(contrast: Contrast, measure: Measure, *, signed: bool = False) -> list[Compared]:
    """Pairs of which both figures are known and finite, and positive unless they may have any sign."""
    found = ((pair, measure(pair[0]), measure(pair[1])) for pair in contrast.pairs)
    least = -math.inf if signed else 0.0
    return [
        Compared(pair, level, reference)
        for pair, level, reference in found
        if level is not None and reference is not None and least < level < math.inf and least < reference < math.inf
    ]


def is_number(value: Scalar) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def pool_of(point: PointSnapshot) -> str | None:
    """Where the deciding attempt ran."""
    return point.attempts[-1].pool if point.attempts else None


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _number(value: Scalar) -> float:
    return float(value)  # type: ignore[arg-type]
