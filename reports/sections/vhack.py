"""What was kept of the directions that jobs project out, and how much of each step pointed along them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from reports import metrics
from reports.excerpt import shown
from reports.markdown import Column
from reports.numbers import count, percent, statistics
from reports.sections.points import job_columns, tried
from reports.snapshot import PointSnapshot, SweepSnapshot

SHARES = (("`cin`", metrics.VHACK_CIN), ("`cout`", metrics.VHACK_COUT), ("Fired", metrics.VHACK_FIRED))


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """A table of the points that projected; nothing where none did."""
    projected = [point for point in tried(snapshot) if metrics.series(point, metrics.VHACK_AXES)]
    if not projected:
        return None
    points, steps = shown(snapshot, projected), metrics.shown_steps(snapshot)
    columns = [
        *job_columns(snapshot, points),
        _kept("Modules kept", points, metrics.VHACK_MODULES, metrics.VHACK_MODULES_SAVED),
        _kept("Axes kept", points, metrics.VHACK_AXES, metrics.VHACK_AXES_SAVED),
        _figures("Threshold", (_constant(point, metrics.VHACK_THRESHOLD) for point in points)),
        *(
            _figures(f"{title} {step}", (metrics.at(point, names, step) for point in points))
            for title, names in SHARES
            for step in steps
        ),
        Column("Projection % of `step`", [_cost(point) for point in points], numeric=True),
    ]
    return {"columns": columns, "points": len(points), "projected": len(projected)}


def _constant(point: PointSnapshot, names: metrics.Names) -> float | None:
    """Of a figure that is the same in every step, the first."""
    return next(iter(metrics.series(point, names).values()), None)


def _kept(title: str, points: Sequence[PointSnapshot], kept: metrics.Names, of: metrics.Names) -> Column:
    figures = [(_constant(point, kept), _constant(point, of)) for point in points]
    cells = ["" if one is None or all_ is None else f"{count(one)} of {count(all_)}" for one, all_ in figures]
    return Column(title, cells, numeric=True)


def _figures(title: str, values: Iterable[float | None]) -> Column:
    return Column(title, statistics(list(values)), numeric=True)


def _cost(point: PointSnapshot) -> str:
    """Seconds of projection over those of the steps, all together."""
    spent, steps = metrics.series(point, metrics.VHACK_SECONDS), metrics.series(point, metrics.STEP)
    both = spent.keys() & steps.keys()
    return percent(sum(spent[step] for step in both), sum(steps[step] for step in both)) if both else ""
