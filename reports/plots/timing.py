"""Where the seconds of a step go: one bar a job, its parts without overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from reports import metrics
from reports.numbers import plural, seconds
from reports.plots import style
from reports.plots.plot import Plot, extremes, left_out, short
from reports.sections.points import tried
from reports.snapshot import PointSnapshot, SweepSnapshot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 24
_NAMES = dict(metrics.PHASES)
_INSIDE_SCORES = ("grad_staging", "hessian_solve", "token_scoring")
_PASSES = {
    "passes of the trace": ("forward_1", "logprob_backward"),
    "passes of the loss": ("forward_2", "loss_backward"),
}
PARTS = (
    "gen",
    *_PASSES,
    *_INSIDE_SCORES,
    "rest of pop_rows",
    "rest of the update",
    "rest of the step",
)
"""From left to right; each a phase of the timing table, or what is left of one that holds others."""


def parts(point: PointSnapshot, step: int | None) -> dict[str, float]:
    """Seconds of every part; together the step where that was timed. Phases that were not timed are in the rest around them.

    A rest is never negative: where phases overlap, the sum is more than the step.
    """

    def took(name: str) -> float:
        value = metrics.at(point, _NAMES[name], step) or 0.0
        return max(value, 0.0) if math.isfinite(value) else 0.0

    passes = {part: sum(map(took, names)) for part, names in _PASSES.items()}
    inside = {name: took(name) for name in _INSIDE_SCORES}
    pop_rows = max(took("pop_rows"), sum(inside.values()))
    whole = metrics.seconds(point, "update_actor", step) or 0.0
    update = max(whole if math.isfinite(whole) else 0.0, pop_rows + sum(passes.values()))
    return {
        "gen": took("gen"),
        **passes,
        **inside,
        "rest of pop_rows": pop_rows - sum(inside.values()),
        "rest of the update": update - pop_rows - sum(passes.values()),
        "rest of the step": max(took("step") - took("gen") - update, 0.0),
    }


def timing(snapshot: SweepSnapshot) -> Plot | None:
    step = metrics.first_step(metrics.shown_steps(snapshot))
    every = {point.id: found for point in tried(snapshot) if sum((found := parts(point, step)).values()) > 0}
    if not every:
        return None
    whole = {name: sum(found.values()) for name, found in every.items()}
    points = extremes([p for p in snapshot.points if p.id in every], lambda p: whole[p.id], MOST)
    totals = sorted(whole[point.id] for point in points)
    largest = max(points, key=lambda point: whole[point.id])
    part, most = max(every[largest.id].items(), key=lambda item: item[1])
    span = seconds(totals[0]) if len(totals) == 1 else f"{seconds(totals[0])} to {seconds(totals[-1])}"
    return Plot(
        name="timing",
        title=f"Time of step {step} by phase",
        alt=f"Bars of {plural(len(points), 'job')}, {span} s in all. In the longest, {short(largest.name)}, {part} takes most: "
        f"{seconds(most)} s.",
        height=style.row_height(len(points)) + 0.4,
        draw=partial(_draw, [(short(p.name), every[p.id]) for p in points]),
        note=left_out(len(points), len(every), "time"),
    )


def _draw(found: Sequence[tuple[str, dict[str, float]]], figure: Figure) -> None:
    axes = figure.subplots()
    starts = [0.0] * len(found)
    for place, part in enumerate(PARTS):
        widths = [times[part] for _, times in found]
        if any(widths):
            axes.barh(range(len(found)), widths, left=starts, height=0.62, label=part, **style.fill(place))
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for row, total in enumerate(starts):
        axes.annotate(
            f"{seconds(total)} s", (total, row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
        )
    style.rows(axes, [name for name, _ in found])
    axes.set_xlim(0, max(starts) * 1.1)
    axes.set_xlabel("seconds")
    figure.legend(loc="outside upper left", ncols=3)
