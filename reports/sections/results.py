"""The table a reader looks at first: one row a point."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from reports import metrics
from reports.excerpt import Excerpt, Group, excerpt
from reports.markdown import Column, code, codes, literal, text
from reports.numbers import count, seconds, statistics
from reports.sections.levels import by_level
from reports.sections.memory import UNRELIABLE, footnote, memory_columns
from reports.sections.patches import patch_note
from reports.sections.points import fixed_settings, job_columns, scalar
from reports.snapshot import PointSnapshot, SweepSnapshot

_LONGEST_REASON = 160


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """One table; of a large sweep one a group, with its highest and its lowest points, below a summary of all by level."""
    if not snapshot.points:
        return None
    found = excerpt(snapshot)
    points = found.points if found else snapshot.points
    return {
        "settings": fixed_settings(snapshot),
        "columns": [] if found else _columns(snapshot, points),
        "ranked_by": found.figure if found else "",
        "levels": by_level(snapshot) if found else [],
        "groups": [_group(snapshot, found, group) for group in found.groups] if found else [],
        "memory_footnote": footnote(points),
        "patch_footnote": patch_note(points),
        "timed_step": _timed_step(snapshot),
        "npz_step": metrics.first_step(metrics.shown_npz_steps(snapshot)),
    }


def _group(snapshot: SweepSnapshot, found: Excerpt, group: Group) -> dict[str, Any]:
    """Its heading, and its points with a row that says how many are not there."""
    points = (*group.top, *group.bottom)
    columns = _columns(snapshot, points)
    left_out = group.points - len(points)
    if left_out and group.bottom:
        at = len(group.top)
        gap = [f"… {left_out:,} more", *[""] * (len(columns) - 1)]
        columns = [
            dataclasses.replace(column, cells=[*column.cells[:at], cell, *column.cells[at:]])
            for column, cell in zip(columns, gap, strict=True)
        ]
    title = f"{code(found.axis)} = {code(scalar(group.level))}" if found.axis else ""
    return {"title": title, "points": group.points, "columns": columns}


def _columns(snapshot: SweepSnapshot, points: Sequence[PointSnapshot]) -> list[Column]:
    steps = metrics.shown_steps(snapshot)
    span = "/".join(f"s{step}" for step in steps)
    return [
        *job_columns(snapshot, points),
        Column(f"`rows` ({span})", _over_steps(points, metrics.ROWS_EMITTED, steps, _counts), numeric=True),
        Column(f"`grad_norm` ({span})", _over_steps(points, metrics.GRAD_NORM, steps, statistics), numeric=True),
        _seconds_column("pop_rows", points, metrics.POP_ROWS, steps),
        _seconds_column("hessian_solve", points, metrics.HESSIAN_SOLVE, steps),
        *memory_columns(points),
        Column("Score std", _score_std(snapshot, points), numeric=True),
        Column("Status", [status(point) for point in points]),
    ]


def status(point: PointSnapshot) -> str:
    """The state; why, where it is not a success; and the anomalies that no footnote explains."""
    words = text(point.state.capitalize())
    if point.state != "succeeded":
        why = [code(point.verdict)] if point.verdict else []
        why += [literal(_shortened(point.reason))] if point.reason else []
        words += f": {', '.join(why)}" if why else ""
    codes_shown = [found for found, _ in point.anomalies if found != UNRELIABLE]
    return words + (f" ({codes(dict.fromkeys(codes_shown))})" if codes_shown else "")


def _timed_step(snapshot: SweepSnapshot) -> int | None:
    """The step whose seconds are shown; None where nobody has any."""
    step = metrics.first_step(metrics.shown_steps(snapshot))
    return step if any(metrics.at(p, metrics.POP_ROWS, step) is not None for p in snapshot.points) else None


def _seconds_column(title: str, points: Sequence[PointSnapshot], names: metrics.Names, steps: Sequence[int]) -> Column:
    values = [metrics.at(point, names, metrics.first_step(steps)) for point in points]
    return Column(f"`{title}` (s)", ["" if value is None else seconds(value) for value in values], numeric=True)


def _score_std(snapshot: SweepSnapshot, points: Sequence[PointSnapshot]) -> list[str]:
    step = metrics.first_step(metrics.shown_npz_steps(snapshot))
    files = [metrics.npz_at(point, step) if step is not None else None for point in points]
    return statistics([file.std if file else None for file in files])


def _over_steps(
    points: Sequence[PointSnapshot],
    names: metrics.Names,
    steps: Sequence[int],
    formatted: Callable[[Sequence[float | None]], list[str]],
) -> list[str]:
    """Cells like 96/80, one figure a step; empty where a point has none at all."""
    values = [metrics.at(point, names, step) for point in points for step in steps]
    figures = [figure or "missing" for figure in formatted(values)]
    rows = [figures[start : start + len(steps)] for start in range(0, len(figures), max(len(steps), 1))]
    return ["" if set(row) == {"missing"} else "/".join(row) for row in rows] or [""] * len(points)


def _counts(values: Sequence[float | None]) -> list[str]:
    return ["" if value is None else count(value) for value in values]


def _shortened(words: str) -> str:
    return words if len(words) <= _LONGEST_REASON else words[: _LONGEST_REASON - 1].rstrip() + "…"
