"""Plots in the report: the images that stand beside it, and in words what they show."""

from __future__ import annotations

from typing import Any

from reports.markdown import literal
from reports.plots.catalogue import plots
from reports.snapshot import SweepSnapshot

FOLDER = "plots"
"""Beside report.md."""


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    found = plots(snapshot)
    if not found:
        return None
    shown = [
        {
            "title": literal(plot.title),
            "alt": literal(plot.alt),
            "note": literal(plot.note),
            "png": f"{FOLDER}/{plot.name}.png",
            "svg": f"{FOLDER}/{plot.name}.svg",
        }
        for plot in found
    ]
    return {"plots": shown}
