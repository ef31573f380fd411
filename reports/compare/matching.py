"""Which point of one sweep is which of another: those with equal values on every axis that both sweeps have.

An axis that only one of the two has does not match anything; where it varies there, several points may claim the same
partner, and such points are left unmatched rather than guessed. An axis with one level here and another one there is what the
two sweeps differ in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from reports.sections.patches import is_patched
from reports.sections.points import axis_values, scalar
from reports.snapshot import PointSnapshot, Scalar, SweepSnapshot

Key = tuple[tuple[str, str], ...]
"""(axis, value) of each shared axis."""


@dataclass(frozen=True)
class Pair:
    """The same configuration in both sweeps."""

    setting: Key
    """Shared axes without the replicates'."""
    replicate: Key
    a: PointSnapshot
    b: PointSnapshot

    @property
    def obstacle(self) -> str:
        """Why its figures do not compare; empty where they do."""
        for name, point in (("A", self.a), ("B", self.b)):
            if point.state != "succeeded":
                return f"{point.state} in {name}" + (f" (`{point.verdict}`)" if point.verdict else "")
            if is_patched(point):
                return f"changed by the retry policy in {name}"
        return ""


@dataclass(frozen=True)
class Matching:
    """How two sweeps fit together."""

    axes: tuple[str, ...]
    """Shared, replicate axes included."""
    pairs: tuple[Pair, ...]
    """In the order of B."""
    only_a: tuple[PointSnapshot, ...]
    only_b: tuple[PointSnapshot, ...]
    ambiguous: tuple[PointSnapshot, ...]
    """Points that share their key with others of their own sweep."""

    @property
    def settings(self) -> dict[Key, list[Pair]]:
        """Pairs whose figures compare, by setting."""
        found: dict[Key, list[Pair]] = defaultdict(list)
        for pair in self.pairs:
            if not pair.obstacle:
                found[pair.setting].append(pair)
        return dict(found)


def match(a: SweepSnapshot, b: SweepSnapshot) -> Matching:
    """Match the points of two sweeps."""
    axes = tuple(axis for axis in b.axes if axis in a.axes and not _only_sets_apart(axis, a, b))
    replicates = {name for sweep in (a, b) for point in sweep.points for name in point.replicate}
    of_a, of_b = _by_key(a.points, axes), _by_key(b.points, axes)
    pairs = []
    for key, points in of_b.items():
        others = of_a.get(key, [])
        if len(points) == len(others) == 1:
            setting = tuple(part for part in key if part[0] not in replicates)
            pairs.append(Pair(setting, tuple(p for p in key if p[0] in replicates), others[0], points[0]))
    unclear = {key for found in (of_a, of_b) for key, points in found.items() if len(points) > 1}
    return Matching(
        axes=axes,
        pairs=tuple(pairs),
        only_a=tuple(p for key, points in of_a.items() if key not in of_b for p in points),
        only_b=tuple(p for key, points in of_b.items() if key not in of_a for p in points),
        ambiguous=tuple(
            p for found in (of_a, of_b) for key, points in found.items() if key in unclear and _both(key, of_a, of_b)
            for p in points
        ),
    )  # fmt: skip


def _only_sets_apart(axis: str, a: SweepSnapshot, b: SweepSnapshot) -> bool:
    """One level in each, and not the same."""
    levels = [{_value(p.parameters[axis]) for p in sweep.points if axis in p.parameters} for sweep in (a, b)]
    return all(len(found) == 1 for found in levels) and levels[0] != levels[1]


def unshared_axes(one: SweepSnapshot, other: SweepSnapshot) -> dict[str, list[str]]:
    """Axes that only the first has, with their values there."""
    return {axis: axis_values(one, axis) for axis in one.axes if axis not in other.axes}


def _both(key: Key, *found: dict[Key, list[PointSnapshot]]) -> bool:
    return all(key in points for points in found)


def _by_key(points: Sequence[PointSnapshot], axes: Sequence[str]) -> dict[Key, list[PointSnapshot]]:
    found: dict[Key, list[PointSnapshot]] = defaultdict(list)
    for point in points:
        found[tuple((axis, _value(point.parameters.get(axis))) for axis in axes)].append(point)
    return found


def _value(value: Scalar) -> str:
    """As in a sweep file; 512 and 512.0 are the same."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else scalar(value)  # type: ignore[arg-type]
