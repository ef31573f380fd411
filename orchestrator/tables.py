"""Tables on a terminal: what `sweep` ends with and `status` shows."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import Point, PointState
from orchestrator.tui import STYLES, duration


def points_table(title: str, view: View) -> Table:
    """One row a point, with the newest attempt's verdict."""
    shown = [point for point in view.points if point.state is not PointState.SKIPPED]
    table = _table(title, "point", "id", "state", "verdict", "tries", "time", "flags")
    for point in shown:
        table.add_row(*_cells(point, view.history(point)))
    return table


def plan_table(title: str, points: tuple[Point, ...], pool: str | None) -> Table:
    """What `plan` shows: nothing has started."""
    axes = list(dict.fromkeys(name for point in points for name in point.parameters))
    table = _table(title, "point", "id", *axes, *(["pool"] if pool else []))
    for point in points:
        values = [str(point.parameters.get(axis, "")) for axis in axes]
        table.add_row(point.name, point.id, *values, *([pool] if pool else []))
    return table


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
