"""Distribution of the influence scores of one step: where each job's scores lie, and how heavy their tails are.

The ranges stand on a symmetric logarithmic axis: a standard deviation of 0.2 and a smallest score of -265 are both read from
it. The tails are shares of positions on two logarithmic axes, where a power law is a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from reports import metrics
from reports.histogram import lower_tail, quantile, upper_tail
from reports.numbers import statistics
from reports.plots import style
from reports.plots.plot import Plot, extremes, left_out, short
from reports.snapshot import NpzSnapshot, PointSnapshot, SweepSnapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = len(style.LINES)
_CENTRAL = (0.01, 0.99)


@dataclass(frozen=True)
class Row:
    """A job's scores: all figures are known and finite."""

    name: str
    file: NpzSnapshot
    mean: float
    std: float
    min: float
    max: float

    @property
    def central(self) -> tuple[float, float] | None:
        """Between which the central 98% lie, as far as the bins tell and never beyond the extremes; None without bins."""
        low, high = (quantile(self.file.histogram, share) for share in _CENTRAL)
        return None if low is None or high is None else (max(low, self.min), min(high, self.max))


def scores(snapshot: SweepSnapshot) -> Plot | None:
    step = metrics.first_step(metrics.shown_npz_steps(snapshot))
    every = {point.id: row for point in snapshot.points if (row := _row(point, step)) is not None}
    if not every:
        return None
    points = [point for point in snapshot.points if point.id in every]
    found = [every[point.id] for point in extremes(points, lambda point: every[point.id].std, MOST)]
    low, high = statistics([min(row.std for row in found), max(row.std for row in found)])
    least, most = statistics([min(row.min for row in found), max(row.max for row in found)])
    spread = f"a standard deviation of {low}" if low == high else f"standard deviations from {low} to {high}"
    return Plot(
        name="scores",
        title=f"Score distributions (step {step})",
        alt=f"Scores of {len(found)} {'job' if len(found) == 1 else 'jobs'} at step {step}: {spread}, "
        f"scores between {least} and {most}.",
        height=style.row_height(len(found)) + 0.7,
        draw=partial(_draw, found),
        note=left_out(len(found), len(every), "standard deviation"),
    )


def _row(point: PointSnapshot, step: int | None) -> Row | None:
    file = metrics.npz_at(point, step)
    if file is None or file.mean is None or file.std is None or file.min is None or file.max is None:
        return None
    figures = (file.mean, file.std, file.min, file.max)
    return Row(point.name, file, *figures) if all(map(math.isfinite, figures)) else None


def _draw(found: Sequence[Row], figure: Figure) -> None:
    tails = any(row.file.histogram for row in found)
    if not tails:
        _ranges(figure.subplots(), found)
        return
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    _ranges(left, found)
    _tails(right, found)


def _ranges(axes: Axes, found: Sequence[Row]) -> None:
    """Extremes as a thin line, the central 98% as a bar, one standard deviation as a box, the mean as the job's marker."""
    for place, row in enumerate(found):
        look = style.line(place)
        colour = look["color"]
        axes.plot([row.min, row.max], [place, place], color=colour, linewidth=0.9, marker="|", markersize=6)
        if row.central is not None:
            low, high = row.central
            axes.barh(place, high - low, left=low, height=0.16, color=colour)
        axes.barh(place, 2 * row.std, left=row.mean - row.std, height=0.5, facecolor="none", edgecolor=colour)
        axes.plot([row.mean], [place], color=colour, marker=look["marker"], markersize=5, markeredgecolor="white")
    style.rows(axes, [short(row.name) for row in found])
    _symmetric(axes, found)
    bar = ", bar central 98%" if any(row.central for row in found) else ""
    axes.set_xlabel(f"score: line all{bar}, box mean ± std")


def _symmetric(axes: Axes, found: Sequence[Row]) -> None:
    """Linear within the power of ten below the smallest standard deviation, logarithmic outside."""
    largest = max(max(abs(row.min), abs(row.max), row.std) for row in found) or 1.0
    inner = min((row.std for row in found if row.std > 0), default=largest)
    inner = 10.0 ** math.floor(math.log10(max(inner, largest * 1e-6)))
    axes.set_xscale("symlog", linthresh=inner, linscale=0.6)
    outer = math.ceil(math.log10(largest))
    decades = range(round(math.log10(inner)), outer + 1)
    every = max(1, math.ceil(len(decades) / 3))
    ticks = [10.0**decade for decade in reversed(decades[::-every] if len(decades) > 1 else decades)]
    axes.set_xticks([*(-tick for tick in reversed(ticks)), 0.0, *ticks])
    style.plain_ticks(axes.xaxis)


def _tails(axes: Axes, found: Sequence[Row]) -> None:
    for place, row in enumerate(found):
        look: dict[str, Any] = style.line(place) | {"linestyle": "-", "markersize": 3.5, "linewidth": 1.1}
        for dashes, tail in (("-", upper_tail(row.file.histogram)), ("--", lower_tail(row.file.histogram))):
            if tail:
                axes.plot(*zip(*tail, strict=True), **look | {"linestyle": dashes, "markevery": 4})
    axes.set_xscale("log")
    axes.set_yscale("log")
    style.few_decades(axes.xaxis)
    style.few_decades(axes.yaxis)
    axes.grid()
    axes.set_xlabel("distance from zero")
    axes.set_ylabel("share of positions beyond")
    axes.plot([], [], color=style.INK, linestyle="-", label="positive scores")
    axes.plot([], [], color=style.INK, linestyle="--", label="negative scores")
    axes.legend(loc="lower left")
