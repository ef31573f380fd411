"""Which points of a large sweep its tables show: of each group the highest and the lowest by one figure.

A table of five hundred rows is read by nobody. All points are in `report-points.csv` beside the report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reports import metrics
from reports.snapshot import PointSnapshot, Scalar, SweepSnapshot

MOST_ROWS = 40
"""A sweep of more points is shown in parts."""
_MOST_GROUPS = 6
_ROWS_IN_ALL = 24

Figure = Callable[[PointSnapshot], float | None]


@dataclass(frozen=True)
class Group:
    """Points that share a level of one axis."""

    level: Scalar
    top: tuple[PointSnapshot, ...]
    """Highest first."""
    bottom: tuple[PointSnapshot, ...]
    """Lowest last."""
    points: int
    """Of the group in all."""


@dataclass(frozen=True)
class Excerpt:
    """What is shown of a sweep."""

    axis: str | None
    """By whose levels points are grouped; None: all are one group."""
    figure: str
    """By which they are ranked, in words."""
    groups: tuple[Group, ...]

    @property
    def points(self) -> tuple[PointSnapshot, ...]:
        return tuple(point for group in self.groups for point in (*group.top, *group.bottom))


def excerpt(snapshot: SweepSnapshot) -> Excerpt | None:
    """None where the sweep is small enough to be shown whole."""
    points = snapshot.points
    if len(points) <= MOST_ROWS:
        return None
    axis = _grouping_axis(snapshot)
    levels = list(dict.fromkeys(point.parameters.get(axis) for point in points)) if axis else [None]
    words, figure = _ranking(snapshot)
    each = max(1, _ROWS_IN_ALL // (2 * len(levels)))
    groups = []
    for level in levels:
        members = [point for point in points if axis is None or point.parameters.get(axis) == level]
        known = [point for point in members if figure(point) is not None]
        ranked = sorted(known or members, key=lambda point: (-_or_least(figure(point)), point.name))
        top = ranked[:each]
        groups.append(Group(level, tuple(top), tuple(ranked[each:][-each:]), len(members)))
    return Excerpt(axis, words, tuple(groups))


def shown(snapshot: SweepSnapshot, points: Sequence[PointSnapshot]) -> list[PointSnapshot]:
    """Those of `points` that the report shows."""
    found = excerpt(snapshot)
    if found is None:
        return list(points)
    ids = {point.id for point in found.points}
    return [point for point in points if point.id in ids]


def _grouping_axis(snapshot: SweepSnapshot) -> str | None:
    """The first axis with a few levels; a replicate axis is none."""
    replicates = {name for point in snapshot.points for name in point.replicate}
    for axis in snapshot.axes:
        levels = {point.parameters.get(axis) for point in snapshot.points}
        if axis not in replicates and 1 < len(levels) <= _MOST_GROUPS:
            return axis
    return None


def _ranking(snapshot: SweepSnapshot) -> tuple[str, Figure]:
    """What to rank by: the spread of the scores where there are any, else the time of a step, else the gradient."""
    step = metrics.first_step(metrics.shown_steps(snapshot))
    npz_step = metrics.first_step(metrics.shown_npz_steps(snapshot))

    def score_std(point: PointSnapshot) -> float | None:
        file = metrics.npz_at(point, npz_step)
        return file.std if file else None

    def seconds(point: PointSnapshot) -> float | None:
        return metrics.at(point, metrics.STEP, step)

    def grad_norm(point: PointSnapshot) -> float | None:
        return metrics.at(point, metrics.GRAD_NORM, step)

    for words, figure in (("score std", score_std), ("seconds a step", seconds), ("`grad_norm`", grad_norm)):
        if any(figure(point) is not None for point in snapshot.points):
            return words, figure
    return "name", lambda _point: None


def _or_least(value: float | None) -> float:
    """For sorting: what has no figure, or none that can be compared, comes last."""
    return -math.inf if value is None or math.isnan(value) else value
