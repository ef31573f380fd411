"""Tables on a terminal: what `sweep` ends with and `status` shows."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import Estimate, Forecast, Point, PointState
from orchestrator.placement import GIB
from orchestrator.tui import STYLES, duration


def points_table(title: str, view: View) -> Table:
    """One row a point, with the newest attempt's verdict."""
    shown = [point for point in view.points if point.state is not PointState.SKIPPED]
    table = _table(title, "point", "id", "state", "verdict", "tries", "time", "flags")
    for point in shown:
        table.add_row(*_cells(point, view.history(point)))
    return table


def plan_table(title: str, rows: Sequence[tuple[Point, str | None, Forecast | None]]) -> Table:
    """What `plan` shows: nothing has started.

    Args:
        rows: each point with the pool that it would start on, and what is predicted for it there.
    """
    axes = list(dict.fromkeys(name for point, _, _ in rows for name in point.parameters))
    pools = any(pool for _, pool, _ in rows)
    table = _table(title, "point", "id", *axes, *(["pool", "GPU GiB"] if pools else []), "host GiB", "time")
    for point, pool, found in rows:
        values = [str(point.parameters.get(axis, "")) for axis in axes]
        forecast = found or Forecast()
        gpu = [pool or "", _in_gib(forecast.gpu_bytes)] if pools else []
        table.add_row(point.name, point.id, *values, *gpu, _in_gib(forecast.host_bytes), _time(forecast.seconds))
    return table


def _in_gib(estimate: Estimate | None) -> str:
    """`62 (50-78)`; ? where it is unknown."""
    if estimate is None:
        return "?"
    value, low, high = (part / GIB for part in (estimate.value, estimate.low, estimate.high))
    digits = 2 if value < 1 else 1 if value < 10 else 0
    return f"{value:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def _time(estimate: Estimate | None) -> str:
    if estimate is None:
        return "?"
    return f"{duration(estimate.value)} ({duration(estimate.low)}-{duration(estimate.high)})"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column in ("tries", "time") else "left")
    return table


def _cells(point: PointRow, history: tuple[AttemptRow, ...]) -> tuple[str | Text, ...]:
    last = history[-1] if history else None
    took = last.ended_at - last.started_at if last and last.ended_at and last.started_at else None
    verdict = last.verdict.value if last and last.verdict else ""
    settled_badly = point.state in (PointState.FAILED, PointState.BLOCKED) and point.reason
    return (
        point.name,
        point.id,
        Text(point.state.value, style=STYLES.get(point.state, "")),
        ": ".join(filter(None, (verdict, point.reason))) if settled_badly else verdict,
        str(len(history)) if history else "",
        duration(took) if took is not None else "",
        Text(", ".join(anomaly.code for anomaly in last.anomalies) if last else "", style="yellow"),
    )
