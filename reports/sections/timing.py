"""Where a step's time went, and what the influence pass costs of the actor's update."""

from __future__ import annotations

from typing import Any

from reports import metrics
from reports.markdown import Column
from reports.numbers import percent, seconds
from reports.sections.points import job_columns, tried
from reports.sections.resources import job_seconds
from reports.snapshot import PointSnapshot, SweepSnapshot


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """Phases of the first step in seconds; nothing when no phase was timed."""
    step = metrics.first_step(metrics.shown_steps(snapshot))
    points = [p for p in tried(snapshot) if any(metrics.at(p, names, step) is not None for _, names in metrics.PHASES)]
    if step is None or not points:
        return None
    phases = [
        Column(f"`{phase}` (s)", [_figure(metrics.at(point, names, step)) for point in points], numeric=True)
        for phase, names in metrics.PHASES
    ]
    share = Column("`pop_rows` % of `update_actor`", [_share(point, step) for point in points], numeric=True)
    whole = [
        Column("Job (s)", [_figure(job_seconds(point)) for point in points], numeric=True),
        Column("Outside its steps (s)", [_figure(_outside_steps(point)) for point in points], numeric=True),
    ]
    return {"step": step, "columns": [*job_columns(snapshot, points), *phases, share, *whole]}


def _outside_steps(point: PointSnapshot) -> float | None:
    """Preparation, start-up and shutdown: what the job took beside the steps that it did itself."""
    whole, steps = job_seconds(point), metrics.series(point, metrics.STEP)
    own = [seconds for step, seconds in steps.items() if step > point.resumed_after]
    return None if whole is None or not own else whole - sum(own)


def _figure(value: float | None) -> str:
    return "" if value is None else seconds(value)


def _share(point: PointSnapshot, step: int) -> str:
    part, whole = metrics.at(point, metrics.POP_ROWS, step), metrics.at(point, metrics.UPDATE_ACTOR, step)
    return "" if part is None or whole is None else percent(part, whole)
