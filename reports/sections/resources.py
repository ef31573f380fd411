"""What was predicted for each point before it ran, beside what was measured: how far the next prediction can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from reports.markdown import Column, code
from reports.numbers import gib, seconds
from reports.sections.memory import device_peak_bytes, host_peak_bytes
from reports.sections.points import job_columns
from reports.snapshot import Expected, PointSnapshot, PredictionSnapshot, SweepSnapshot

_BASES = {
    "shapes": "by formula from the model's shapes",
    "scaled": "scaled from the nearest configuration that was measured before",
    "measured": "measured before in the same configuration",
}


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """Nothing where nothing was predicted, or nothing could be measured of it."""
    points = [point for point in snapshot.points if point.state == "succeeded" and _is_checked(point)]
    if not points:
        return None
    columns = [
        *job_columns(snapshot, points),
        Column("Pool", [code(_pool(point)) for point in points]),
        *_columns("GPU (GiB)", points, lambda p: p.gpu_bytes, device_peak_bytes, gib),
        *_columns("Host (GiB)", points, lambda p: p.host_bytes, host_peak_bytes, gib),
        *_columns("Job (s)", points, lambda p: p.seconds, job_seconds, seconds),
    ]
    return {"columns": columns, "bases": _bases(points)}


def job_seconds(point: PointSnapshot) -> float | None:
    """Of the deciding attempt, from its first command to its outcome."""
    last = point.attempts[-1] if point.attempts else None
    return None if last is None or last.started_at is None or last.ended_at is None else last.ended_at - last.started_at


_Predicted = Callable[[PredictionSnapshot], Expected | None]
_Measured = Callable[[PointSnapshot], float | None]


def _columns(
    title: str,
    points: Sequence[PointSnapshot],
    predicted: _Predicted,
    measured: _Measured,
    written: Callable[[float], str],
) -> list[Column]:
    pairs = [(predicted(point.predicted) if point.predicted else None, measured(point)) for point in points]
    pairs = [pair if None not in pair else (None, None) for pair in pairs]
    return [
        Column(f"{title} predicted", [_interval(guess, written) for guess, _ in pairs], numeric=True),
        Column(f"{title} measured", [written(seen) if seen is not None else "" for _, seen in pairs], numeric=True),
        Column(f"{title} off by", [_off(guess, seen) for guess, seen in pairs], numeric=True),
    ]


def _interval(guess: Expected | None, written: Callable[[float], str]) -> str:
    return "" if guess is None else f"{written(guess.value)} ({written(guess.low)} – {written(guess.high)})"


def _off(guess: Expected | None, seen: float | None) -> str:
    """How far the prediction is from the measurement, in percent of it; bold where the interval does not hold it."""
    if guess is None or not seen:
        return ""
    share = f"{100 * (guess.value - seen) / seen:+.0f}%"
    return share if guess.low <= seen <= guess.high else f"**{share}**"


def _is_checked(point: PointSnapshot) -> bool:
    found = point.predicted
    if found is None:
        return False
    pairs = ((found.gpu_bytes, device_peak_bytes), (found.host_bytes, host_peak_bytes), (found.seconds, job_seconds))
    return any(guess is not None and measured(point) is not None for guess, measured in pairs)


def _pool(point: PointSnapshot) -> str:
    return (point.attempts[-1].pool or "") if point.attempts else ""


def _bases(points: Sequence[PointSnapshot]) -> list[str]:
    """How the figures were predicted, in words."""
    guesses = [g for p in points if (f := p.predicted) for g in (f.gpu_bytes, f.host_bytes, f.seconds) if g]
    return [_BASES[basis] for basis in _BASES if any(guess.basis == basis for guess in guesses)]
