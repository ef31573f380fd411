"""Every try of the points, and why a point moved from one pool to another."""

from __future__ import annotations

from typing import Any

from reports.excerpt import MOST_ROWS
from reports.markdown import Column, code, literal, text
from reports.numbers import duration, gib, seconds
from reports.snapshot import AttemptSnapshot, SweepSnapshot


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """All attempts where some point took more than one; of a large sweep those of such points alone."""
    every = [(point, attempt) for point in snapshot.points for attempt in point.attempts]
    if not any(len(point.attempts) > 1 or attempt.moved for point, attempt in every):
        return None
    told = [pair for pair in every if len(pair[0].attempts) > 1 or pair[1].moved] if len(every) > MOST_ROWS else every
    rows = told[:MOST_ROWS]
    tries = [attempt for _, attempt in rows]
    columns = [
        Column("Job", [code(point.name) for point, _ in rows]),
        Column("Attempt", [str(attempt.n) for attempt in tries], numeric=True),
        Column("Pool", [code(attempt.pool or "") for attempt in tries]),
        Column("Verdict", [code(attempt.verdict or attempt.state) for attempt in tries]),
        Column("Exit", [_exit(attempt) for attempt in tries]),
        Column("Why", [literal(attempt.reason or "") for attempt in tries]),
        Column("Why on this pool", [text(attempt.moved or "") for attempt in tries]),
        Column("Node", [code(attempt.node or "") for attempt in tries]),
        Column("GPU peak (GiB)", [_size(attempt.gpu_peak_bytes) for attempt in tries], numeric=True),
        Column("Ran for", [_ran_for(attempt) for attempt in tries], numeric=True),
        Column("GPU hours", ["" if a.gpu_hours is None else seconds(a.gpu_hours) for a in tries], numeric=True),
    ]
    return {"columns": columns, "shown": len(rows), "every": len(every)}


def _exit(attempt: AttemptSnapshot) -> str:
    if attempt.signal is not None:
        return f"signal {attempt.signal}"
    return "" if attempt.exit_code is None else f"code {attempt.exit_code}"


def _size(size: int | None) -> str:
    return gib(size) if size else ""


def _ran_for(attempt: AttemptSnapshot) -> str:
    known = attempt.started_at is not None and attempt.ended_at is not None
    return duration(attempt.ended_at - attempt.started_at) if known else ""  # type: ignore[operator]
