"""A plot before it is drawn: what it is called, what it says in words, and how matplotlib would draw it.

Whether a sweep has a plot, and its words, are known without matplotlib, whose import takes longer than a whole report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.markdown import one_line
from reports.snapshot import PointSnapshot, SweepSnapshot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 7.2
"""Inches: the text of an A4 page."""


@dataclass(frozen=True)
class Plot:
    """One image of a report."""

    name: str
    """Of its files, without the suffix."""
    title: str
    alt: str
    """What it shows, with figures, for those who do not see it. Plain text on one line."""
    height: float
    """Inches."""
    draw: Callable[[Figure], None]
    """Onto an empty figure of `WIDTH` by `height`, within the report's style."""
    note: str = ""
    """What is not in it; empty when nothing is left out."""


def extremes(
    points: Sequence[PointSnapshot], figure: Callable[[PointSnapshot], float | None], most: int
) -> list[PointSnapshot]:
    """At most `most` points in their own order: those with the smallest and the largest figures."""
    if len(points) <= most:
        return list(points)
    figures = [value if value is not None and math.isfinite(value) else 0.0 for value in map(figure, points)]
    ranked = sorted(range(len(points)), key=lambda place: (figures[place], place))
    kept = {*ranked[: most // 2], *ranked[len(points) - (most - most // 2) :]}
    return [point for place, point in enumerate(points) if place in kept]


def left_out(shown: int, total: int, what: str) -> str:
    """A sentence on the points that the plot does not show."""
    return f"Shown are {shown} of {total} points, with the smallest and the largest {what}." if shown < total else ""


def short(name: str, most: int = 30) -> str:
    """A name on one line, its middle left out where it is long: jobs of a sweep differ at their ends."""
    line = one_line(name)
    if len(line) <= most:
        return line
    head = most // 3
    return f"{line[:head]}…{line[len(line) - (most - head - 1) :]}"


Plotter = Callable[[SweepSnapshot], Plot | None]
"""None where the sweep holds nothing to draw."""
