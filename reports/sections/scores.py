"""Distribution of the influence scores, as the NPZ files hold them."""

from __future__ import annotations

from typing import Any

from reports import metrics
from reports.excerpt import shown
from reports.markdown import Column
from reports.numbers import count, statistics
from reports.sections.points import job_columns
from reports.snapshot import SweepSnapshot


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """One row a point and step; long runs show their first and last step, large sweeps the first alone."""
    points, steps = shown(snapshot, snapshot.points), metrics.shown_npz_steps(snapshot)
    steps = steps[:1] if len(points) < len(snapshot.points) else steps
    found = [(point, metrics.npz_at(point, step)) for point in points for step in steps]
    rows = [(point, file) for point, file in found if file is not None]
    if not rows:
        return None
    files = [file for _, file in rows]
    lost = any(file.nan_in_valid for file in files)
    columns = [
        *job_columns(snapshot, [point for point, _ in rows]),
        Column("Step", [str(file.step) if len(steps) > 1 else "" for file in files], numeric=True),
        Column("Valid Positions", [count(file.valid) for file in files], numeric=True),
        Column("Mean", statistics([file.mean for file in files]), numeric=True),
        Column("Std", statistics([file.std for file in files]), numeric=True),
        Column("Min", statistics([file.min for file in files]), numeric=True),
        Column("Max", statistics([file.max for file in files]), numeric=True),
        Column("Unexpected NaN", [count(file.nan_in_valid) if lost else "" for file in files], numeric=True),
    ]
    return {"steps": steps, "columns": columns, "points": len(points)}
