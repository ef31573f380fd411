"""A large sweep at a glance: each level of each axis with its points, how they ended, and the medians of what they measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from reports import metrics
from reports.markdown import Column, code
from reports.numbers import count, gib, seconds, statistics
from reports.sections.memory import device_peak_bytes, had_gpu
from reports.sections.points import axis_values, scalar, varying_axes
from reports.snapshot import PointSnapshot, SweepSnapshot

MOST_LEVELS = 12
"""Axes of more are not told apart: they are as long as the sweep."""

Figure = Callable[[PointSnapshot], float | None]


def by_level(snapshot: SweepSnapshot) -> list[Column]:
    """Columns of the summary; nothing where no axis has a few levels."""
    step = metrics.first_step(metrics.shown_steps(snapshot))
    rows = [
        (axis, level, [p for p in snapshot.points if axis in p.parameters and scalar(p.parameters[axis]) == level])
        for axis in varying_axes(snapshot)
        if len(levels := axis_values(snapshot, axis)) <= MOST_LEVELS
        for level in levels
    ]
    if not rows:
        return []
    groups = [points for _, _, points in rows]
    return [
        Column("Axis", [code(axis) for axis, _, _ in rows]),
        Column("Level", [code(level) for _, level, _ in rows]),
        Column("Points", [count(len(points)) for points in groups], numeric=True),
        Column("Succeeded", [count(sum(p.state == "succeeded" for p in points)) for points in groups], numeric=True),
        Column("With anomalies", [count(sum(bool(p.anomalies) for p in points)) for points in groups], numeric=True),
        _medians("`grad_norm`", groups, lambda p: metrics.at(p, metrics.GRAD_NORM, step), statistics),
        _medians("`pop_rows` (s)", groups, lambda p: metrics.at(p, metrics.POP_ROWS, step), _each(seconds)),
        _medians("`step` (s)", groups, lambda p: metrics.at(p, metrics.STEP, step), _each(seconds)),
        _medians("GPU peak (GiB)", groups, lambda p: device_peak_bytes(p) if had_gpu(p) else None, _each(gib)),
        _medians("Score std", groups, _score_std(snapshot), statistics),
    ]


def _score_std(snapshot: SweepSnapshot) -> Figure:
    step = metrics.first_step(metrics.shown_npz_steps(snapshot))

    def score_std(point: PointSnapshot) -> float | None:
        file = metrics.npz_at(point, step)
        return file.std if file else None

    return score_std


def _medians(
    title: str,
    groups: Sequence[Sequence[PointSnapshot]],
    figure: Figure,
    written: Callable[[Sequence[float | None]], list[str]],
) -> Column:
    known = [[v for p in points if (v := figure(p)) is not None and not math.isnan(v)] for points in groups]
    return Column(title, written([median(values) if values else None for values in known]), numeric=True)


def _each(written: Callable[[float], str]) -> Callable[[Sequence[float | None]], list[str]]:
    return lambda values: ["" if value is None else written(value) for value in values]
