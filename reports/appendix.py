"""All points and all attempts of a sweep as CSV, for programs and for sweeps too large to be read: every figure in full.

A row a point, a column a parameter and a column a figure and step: `timing_s/step@2`, `npz/std@1`. Of long runs these are the
first and the last step, as in the report. Floats are written so that reading them back gives the same number; what is not
known is empty.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from reports import metrics
from reports.sections.points import pool_of
from reports.snapshot import AttemptSnapshot, NpzSnapshot, PointSnapshot, SweepSnapshot

POINTS = "report-points.csv"
ATTEMPTS = "report-attempts.csv"

_STATISTICS = ("responses", "valid", "mean", "std", "min", "max", "nan_in_valid", "bytes")
_SIZES = ("card_bytes", "gpu_peak_bytes", "host_peak_bytes", "host_limit_bytes")
_OF_ATTEMPTS = (
    "n", "pool", "moved", "node", "state", "verdict", "reason", "exit_code", "signal", "started_at", "ended_at",
    "gpu_hours", "gpu_peak_bytes", "host_peak_bytes", "folder",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t")


def points_csv(snapshot: SweepSnapshot) -> str:
    """A header, then one line a point in the sweep's order."""
    steps = {*metrics.shown_steps(snapshot)}, {*metrics.shown_npz_steps(snapshot)}
    return _csv([_point(point, *steps) for point in snapshot.points])


def attempts_csv(snapshot: SweepSnapshot) -> str:
    """A header, then one line an attempt."""
    rows = [_attempt(point, attempt) for point in snapshot.points for attempt in point.attempts]
    return _csv(rows)


def _point(point: PointSnapshot, steps: set[int], npz_steps: set[int]) -> dict[str, object]:
    row: dict[str, object] = {"job": point.name, "point": point.id}
    row |= {f"parameter:{axis}": value for axis, value in point.parameters.items()}
    row |= {
        "state": point.state,
        "verdict": point.verdict,
        "reason": point.reason,
        "anomalies": " ".join(dict.fromkeys(code for code, _ in point.anomalies)),
        "pool": pool_of(point),
        "attempts": len(point.attempts),
        "gpu_hours": _sum(attempt.gpu_hours for attempt in point.attempts),
    }
    row |= {name: getattr(point, name) for name in _SIZES}
    for step in sorted(steps & point.metrics.keys()):
        row |= {f"{name}@{step}": value for name, value in point.metrics[step].items()}
    for file in point.npz:
        row |= _statistics(file) if file.step in npz_steps else {}
    return row | {"folder": point.folder}


def _statistics(file: NpzSnapshot) -> dict[str, object]:
    return {f"npz/{name}@{file.step}": getattr(file, name) if file.error is None else None for name in _STATISTICS}


def _attempt(point: PointSnapshot, attempt: AttemptSnapshot) -> dict[str, object]:
    return {"job": point.name, "point": point.id, **{name: getattr(attempt, name) for name in _OF_ATTEMPTS}}


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return to_csv([names, *([row.get(name) for name in names] for row in rows)])


def to_csv(lines: Iterable[Sequence[object]]) -> str:
    """Lines of a CSV file; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in line] for line in lines)
    return text.getvalue()


def _cell(value: object) -> object:
    """A text that a spreadsheet would run as a formula begins with an apostrophe; line ends are all alike."""
    if not isinstance(value, str):
        return "" if value is None else value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.startswith(_FORMULA) else text
