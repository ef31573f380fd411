"""Where a step's time went, and what the influence pass costs of the actor's update.

A few points stand side by side, a phase a row, to the millisecond and with shares; of more, each has a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from reports import metrics
from reports.excerpt import shown
from reports.markdown import Column, code
from reports.numbers import milliseconds, percent, seconds
from reports.sections.points import job_columns, pool_of, scalar, tried, varying_axes
from reports.sections.resources import job_seconds
from reports.snapshot import PointSnapshot, SweepSnapshot

SIDE_BY_SIDE = 4
"""Most points that have a column each."""

INSIDE_POP_ROWS = ("grad_staging", "hessian_solve", "token_scoring", "score_aggregation")
OTHER = "other of pop_rows"
SOLVE = "`hessian_solve` % of `pop_rows`"
JOB, OUTSIDE = "Job (s)", "Outside its steps (s)"

Figure = Callable[[PointSnapshot], float | None]


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """Phases of the first step in seconds; nothing when no phase was timed."""
    step = metrics.first_step(metrics.shown_steps(snapshot))
    timed = [p for p in tried(snapshot) if any(metrics.at(p, names, step) is not None for _, names in metrics.PHASES)]
    if step is None or not timed:
        return None
    points = shown(snapshot, timed)
    side_by_side = len(timed) <= SIDE_BY_SIDE
    columns = _phase_a_row(snapshot, points, step) if side_by_side else _point_a_row(snapshot, points, step)
    return {"step": step, "columns": columns, "points": len(points), "timed": len(timed)}


def _point_a_row(snapshot: SweepSnapshot, points: Sequence[PointSnapshot], step: int) -> list[Column]:
    phases = [
        Column(f"{code(name)} (s)", _cells(points, figure, seconds), numeric=True)
        for name, figure in [*_phases(step), *_further(points, step)]
    ]
    shares = [Column(title, _shares(points, *pair), numeric=True) for title, pair in _shares_of(points, step).items()]
    whole = [
        Column(JOB, _cells(points, job_seconds, seconds), numeric=True),
        Column(OUTSIDE, _cells(points, outside_steps, seconds), numeric=True),
    ]
    return [*job_columns(snapshot, points), *phases, *shares, *whole]


def _phase_a_row(snapshot: SweepSnapshot, points: Sequence[PointSnapshot], step: int) -> list[Column]:
    rows: list[tuple[str, list[str]]] = [
        *(
            (f"{code(name)} (s)", _cells(points, figure, milliseconds))
            for name, figure in [*_phases(step), *_further(points, step)]
        ),
        *((title, _shares(points, *pair)) for title, pair in _shares_of(points, step).items()),
        (JOB, _cells(points, job_seconds, milliseconds)),
        (OUTSIDE, _cells(points, outside_steps, milliseconds)),
    ]
    alone = len(points) == 1
    labels = [
        *((code(axis), [code(scalar(p.parameters.get(axis))) for p in points]) for axis in varying_axes(snapshot)),
        ("Pool", [code(pool_of(p)) for p in points]),
    ]
    kept = [row for row in [*([] if alone else labels), *rows] if any(row[1])]
    columns = [Column("Phase", [title for title, _ in kept])]
    columns += [
        Column(code(point.name), [cells[place] for _, cells in kept], numeric=True)
        for place, point in enumerate(points)
    ]
    return columns + (_shares_of_one(points[0], step, [title for title, _ in kept]) if alone else [])


def _shares_of_one(point: PointSnapshot, step: int, titles: Sequence[str]) -> list[Column]:
    """What each phase is of the two that hold others."""
    figures = {f"`{name}` (s)": figure(point) for name, figure in _phases(step)}
    inside = {f"`{name}` (s)" for name in (*INSIDE_POP_ROWS, OTHER, "pop_rows")}
    passes = (
        set() if metrics.is_beside([point], step) else {"`pop_rows` (s)", "`forward_1` (s)", "`logprob_backward` (s)"}
    )
    within = {
        "pop_rows": inside,
        "update_actor": {"`forward_2` (s)", "`loss_backward` (s)", "`update_actor` (s)"} | passes,
    }
    return [
        Column(
            f"% of `{whole}`",
            [_share(figures.get(title), figures[f"`{whole}` (s)"]) if title in parts else "" for title in titles],
            numeric=True,
        )
        for whole, parts in within.items()
    ]


def _phases(step: int) -> list[tuple[str, Figure]]:
    """Name -> seconds of one step, from the inner phases to the whole step."""

    found = []
    for name, names in metrics.PHASES:
        if name == "pop_rows":
            found.append((OTHER, lambda point: _rest_of_pop_rows(point, step)))
        if name == "step":
            found.append(("influence", _timed(metrics.TRACE, step)))
        found.append((name, _timed(names, step)))
    return found


def _further(points: Sequence[PointSnapshot], step: int) -> list[tuple[str, Figure]]:
    """What else a job timed of the trace: part of none of the shares."""
    return [(name, _timed(names, step)) for name, names in metrics.further_phases(points, step)]


def _timed(names: metrics.Names, step: int) -> Figure:
    return lambda point: metrics.at(point, names, step)


def _rest_of_pop_rows(point: PointSnapshot, step: int) -> float | None:
    """What its phases do not explain; None where one of them was not timed, or where they take as long as the whole."""
    whole = metrics.at(point, metrics.POP_ROWS, step)
    parts = [metrics.at(point, names, step) for name, names in metrics.PHASES if name in INSIDE_POP_ROWS]
    known = [part for part in parts if part is not None]
    rest = whole - sum(known) if whole is not None and len(known) == len(parts) else 0.0
    return rest if rest > 0 else None


def _shares_of(points: Sequence[PointSnapshot], step: int) -> dict[str, tuple[Figure, Figure]]:
    """The update is meant with the trace, which our trainer states beside it."""
    figures = dict(_phases(step))
    update = code(metrics.label("update_actor", points, step))

    def update_seconds(point: PointSnapshot) -> float | None:
        return metrics.seconds(point, "update_actor", step)

    return {
        SOLVE: (figures["hessian_solve"], figures["pop_rows"]),
        f"`pop_rows` % of {update}": (figures["pop_rows"], update_seconds),
        f"{update} % of `step`": (update_seconds, figures["step"]),
    }


def outside_steps(point: PointSnapshot) -> float | None:
    """Preparation, start-up and shutdown: what the job took beside the steps that it did itself."""
    whole, steps = job_seconds(point), metrics.series(point, metrics.STEP)
    own = [seconds for step, seconds in steps.items() if step > point.resumed_after]
    return None if whole is None or not own else whole - sum(own)


def _cells(points: Sequence[PointSnapshot], figure: Figure, written: Callable[[float], str]) -> list[str]:
    return ["" if (value := figure(point)) is None else written(value) for point in points]


def _shares(points: Sequence[PointSnapshot], part: Figure, whole: Figure) -> list[str]:
    return [_share(part(point), whole(point)) for point in points]


def _share(part: float | None, whole: float | None) -> str:
    return "" if part is None or whole is None else percent(part, whole)
