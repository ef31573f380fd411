"""All plots that a report may have, in reading order."""

from __future__ import annotations

from reports.plots.cost import cost
from reports.plots.memory import memory
from reports.plots.plot import Plot, Plotter
from reports.plots.scaling import scaling
from reports.plots.scores import scores
from reports.plots.search import search_front, search_history, search_importance, search_slice
from reports.plots.steps import steps
from reports.plots.timing import timing
from reports.snapshot import SweepSnapshot

SEARCH: tuple[Plotter, ...] = (search_front, search_history, search_slice, search_importance)
PLOTTERS: tuple[Plotter, ...] = (scores, timing, scaling, cost, memory, steps, *SEARCH)
"""Each is called as its plot is named."""


def plots(snapshot: SweepSnapshot) -> list[Plot]:
    """Those for which the sweep holds something."""
    return [plot for plotter in PLOTTERS if (plot := plotter(snapshot)) is not None]
