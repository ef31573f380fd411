"""How the points that did not succeed at once came to their end."""

from __future__ import annotations

from typing import Any

from reports.markdown import Column, code, text
from reports.numbers import duration
from reports.snapshot import AttemptSnapshot, SweepSnapshot


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """Every attempt of every point that took more than one; nothing when none did."""
    rows = [(point.name, a) for point in snapshot.points if len(point.attempts) > 1 for a in point.attempts]
    if not rows:
        return None
    tries = [attempt for _, attempt in rows]
    columns = [
        Column("Job", [code(name) for name, _ in rows]),
        Column("Attempt", [str(attempt.n) for attempt in tries], numeric=True),
        Column("Pool", [code(attempt.pool or "") for attempt in tries]),
        Column("Verdict", [code(attempt.verdict or attempt.state) for attempt in tries]),
        Column("Exit", [_exit(attempt) for attempt in tries]),
        Column("Why", [text(attempt.reason or "") for attempt in tries]),
        Column("Ran for", [_ran_for(attempt) for attempt in tries], numeric=True),
        Column("GPU hours", ["" if a.gpu_hours is None else f"{a.gpu_hours:.1f}" for a in tries], numeric=True),
    ]
    return {"columns": columns}


def _exit(attempt: AttemptSnapshot) -> str:
    if attempt.signal is not None:
        return f"signal {attempt.signal}"
    return "" if attempt.exit_code is None else f"code {attempt.exit_code}"


def _ran_for(attempt: AttemptSnapshot) -> str:
    known = attempt.started_at is not None and attempt.ended_at is not None
    return duration(attempt.ended_at - attempt.started_at) if known else ""  # type: ignore[operator]
