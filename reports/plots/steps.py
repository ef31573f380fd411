"""Curves over the steps of training, where there are enough steps to have a course."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from reports import metrics
from reports.plots import style
from reports.plots.plot import Plot, extremes, left_out, short
from reports.sections.points import tried
from reports.snapshot import PointSnapshot, SweepSnapshot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = len(style.LINES)
_FEWEST_STEPS = 4

CURVES: tuple[tuple[str, metrics.Names], ...] = (
    ("mean reward", ("critic/rewards/mean", "critic/score/mean")),
    ("grad_norm", metrics.GRAD_NORM),
    ("seconds of a step", metrics.STEP),
)
Curve = dict[int, float]


def steps(snapshot: SweepSnapshot) -> Plot | None:
    every = [point for point in tried(snapshot) if len(point.metrics) >= _FEWEST_STEPS]
    shown = [(title, names) for title, names in CURVES if any(metrics.series(point, names) for point in every)]
    if not shown:
        return None
    title, names = shown[0]
    points = extremes(every, lambda point: _last(point, names), MOST)
    ends = [end for point in points if (end := _last(point, names)) is not None]
    longest = max(len(point.metrics) for point in points)
    said = f", {title} at the end {min(ends):.3g} to {max(ends):.3g}" if ends else ""
    return Plot(
        name="steps",
        title="Course of training",
        alt=f"Curves of {len(points)} {'job' if len(points) == 1 else 'jobs'} over up to {longest} steps: "
        f"{', '.join(title for title, _ in shown)}{said}.",
        height=2.7 + 0.1 * len(points),
        draw=partial(_draw, shown, points),
        note=left_out(len(points), len(every), f"{title} at the end"),
    )


def _last(point: PointSnapshot, names: metrics.Names) -> float | None:
    return next(reversed(metrics.series(point, names).values()), None)


def _draw(shown: Sequence[tuple[str, metrics.Names]], points: Sequence[PointSnapshot], figure: Figure) -> None:
    for axes, (title, names) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for place, point in enumerate(points):
            found = metrics.series(point, names)
            look = style.line(place) | {"markevery": max(1, len(found) // 8)}
            axes.plot(list(found), list(found.values()), label=short(point.name), **look)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid()
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
