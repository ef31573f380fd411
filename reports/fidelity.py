"""Cost against fidelity along the projection's factor, and the knee between them.

The scores of two sweeps' points cannot be compared token by token: each point trains on its own rollouts. What a file does show
is how much spread its scores have, and coarser projections lose some of it. So fidelity is the standard deviation of the
scores relative to the largest along the factor: a stand-in, and called so wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from reports import metrics
from reports.contrasts import Grid, is_number
from reports.snapshot import PointSnapshot, SweepSnapshot

FACTOR = ("factor", "projection_dim_factor")
"""What an axis of projection sizes is called, the last part of a configuration key included."""
COSTS = ("update_actor", "step", "pop_rows")
"""What is paid; the first that was timed."""
_LEAST_BEND = 0.1
"""How far from the straight line between the ends the knee stands at least, both axes from 0 to 1."""


@dataclass(frozen=True)
class Level:
    """One factor of a curve; means over replicates."""

    factor: float
    cost_s: float
    std: float
    points: tuple[PointSnapshot, ...]


@dataclass(frozen=True)
class Curve:
    """Cost against fidelity where all but the factor is equal."""

    axis: str
    setting: str
    """`scope=all_selected`; empty where nothing else varies."""
    cost: str
    """The phase whose seconds are the cost."""
    step: int
    levels: tuple[Level, ...]
    """From the coarsest projection to the finest."""

    @property
    def fidelity(self) -> tuple[float, ...]:
        """Of each level, 1 the best."""
        most = max(level.std for level in self.levels)
        return tuple(level.std / most for level in self.levels)

    @property
    def knee(self) -> Level | None:
        """The level furthest above the line from the cheapest to the best, with both axes brought to 0..1; None where
        there are fewer than three levels, cost or fidelity do not rise all the way, or no level stands out.

        The criterion of Satopää et al., Finding a "Kneedle" in a Haystack (2011), without smoothing.
        """
        costs, gains = _unit([level.cost_s for level in self.levels]), _unit([level.std for level in self.levels])
        if len(self.levels) < 3 or costs is None or gains is None:
            return None
        bends = [gain - cost for gain, cost in zip(gains, costs, strict=True)]
        best = max(range(len(bends)), key=lambda place: bends[place])
        return self.levels[best] if bends[best] >= _LEAST_BEND and 0 < best < len(bends) - 1 else None


def factor_axis(grid: Grid) -> str | None:
    """The axis of projection factors, where the sweep has one with numbers."""
    named = (axis for axis in grid.factors if axis.rpartition(".")[2] in FACTOR)
    return next((axis for axis in named if all(map(is_number, grid.levels(axis)))), None)


def curves(snapshot: SweepSnapshot) -> list[Curve]:
    """One for each setting of the other axes with two levels at least whose cost and spread are known."""
    grid = Grid.of(snapshot)
    axis, step = factor_axis(grid), metrics.first_step(metrics.shown_steps(snapshot))
    if axis is None or step is None:
        return []
    every = (_curve(grid, axis, step, points) for points in grid.groups(axis))
    return [curve for curve in every if curve is not None]


def _curve(grid: Grid, axis: str, step: int, points: Sequence[PointSnapshot]) -> Curve | None:
    for cost in COSTS:
        known: dict[float, list[tuple[float, float, PointSnapshot]]] = {}
        for point in points:
            seconds, file = metrics.seconds(point, cost, step), metrics.npz_at(point, step)
            if seconds and file is not None and file.std:
                known.setdefault(float(str(point.parameters[axis])), []).append((seconds, file.std, point))
        if len(known) > 1:
            levels = tuple(
                Level(factor, fmean(s for s, _, _ in same), fmean(d for _, d, _ in same), tuple(p for _, _, p in same))
                for factor, same in sorted(known.items(), reverse=True)
            )
            setting = grid.setting(points[0], axis, *grid.replicates)
            return Curve(axis, setting, metrics.label(cost, points, step), step, levels)
    return None


def _unit(values: Sequence[float]) -> list[float] | None:
    """From 0 at the first to 1 at the last; None where they do not rise, or fall between."""
    span = values[-1] - values[0]
    is_curve = span > 0 and list(values) == sorted(values)
    return [(value - values[0]) / span for value in values] if is_curve else None
