"""What each point took: pool, memory, GPU-hours; and what it was predicted to take before it ran.

How far the two are apart says how far the next prediction can be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from reports import metrics
from reports.excerpt import shown
from reports.markdown import Column, code
from reports.numbers import GIB, gib, percent, seconds
from reports.sections.memory import device_peak_bytes, had_gpu, host_peak_bytes, is_marked, memory_columns
from reports.sections.points import job_columns, pool_of, tried
from reports.snapshot import AttemptSnapshot, Expected, PointSnapshot, PredictionSnapshot, SweepSnapshot

_BASES = {
    "shapes": "by formula from the model's shapes",
    "scaled": "scaled from the nearest configuration that was measured before",
    "measured": "measured before in the same configuration",
}


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """Nothing where nothing was measured."""
    taken = [point for point in tried(snapshot) if any(column.cells[0] for column in _taken([point])[1:])]
    if not taken:
        return None
    points = shown(snapshot, taken)
    checked = [point for point in points if point.state == "succeeded" and _is_checked(point)]
    held = [attempt for point in taken for attempt in point.attempts if attempt.gpu_hours is not None]
    return {
        "columns": [*job_columns(snapshot, points), *_taken(points)],
        "points": len(points),
        "taken": len(taken),
        "predicted": _against_prediction(snapshot, checked) if checked else [],
        "bases": _bases(checked),
        "gpu_hours": _total(held),
        "gpu_hours_unfinished": _total([attempt for attempt in held if attempt.verdict != "completed"]),
        "memory_footnote": any(is_marked(point) for point in points),
        "node_memory": any(metrics.peak(point, metrics.NODE_USED_GIB) for point in points),
    }


def _taken(points: Sequence[PointSnapshot]) -> list[Column]:
    """The pool, and what was measured."""
    gpu, host = memory_columns(points)
    node = [metrics.peak(point, metrics.NODE_USED_GIB) for point in points]
    return [
        Column("Pool", [code(pool_of(point)) for point in points]),
        Column("GPU peak (GiB)", gpu.cells, numeric=True),
        Column("Card (GiB)", [gib(point.card_bytes) if point.card_bytes else "" for point in points], numeric=True),
        Column("Peak of the card", [_of_the_card(point) for point in points], numeric=True),
        Column("Host peak (GiB)", host.cells, numeric=True),
        Column("Host memory (whole node, GiB)", [gib(value * GIB) if value else "" for value in node], numeric=True),
        Column(
            "Job (s)", [seconds(value) if (value := job_seconds(p)) is not None else "" for p in points], numeric=True
        ),
        Column("GPU hours", [_gpu_hours(point) for point in points], numeric=True),
    ]


def _of_the_card(point: PointSnapshot) -> str:
    """The device's own peak against the card; torch's figure is no such thing."""
    peak = device_peak_bytes(point) if had_gpu(point) else None
    return percent(peak, point.card_bytes) if peak and point.card_bytes else ""


def _gpu_hours(point: PointSnapshot) -> str:
    """Of all its attempts."""
    known = [attempt.gpu_hours for attempt in point.attempts if attempt.gpu_hours is not None]
    return seconds(sum(known)) if known else ""


def _total(attempts: Sequence[AttemptSnapshot]) -> float:
    return sum(attempt.gpu_hours or 0.0 for attempt in attempts)


def _against_prediction(snapshot: SweepSnapshot, points: Sequence[PointSnapshot]) -> list[Column]:
    return [
        *job_columns(snapshot, points),
        Column("Pool", [code(pool_of(point)) for point in points]),
        *_columns("GPU (GiB)", points, lambda p: p.gpu_bytes, device_peak_bytes, gib),
        *_columns("Host (GiB)", points, lambda p: p.host_bytes, host_peak_bytes, gib),
        *_columns("Job (s)", points, lambda p: p.seconds, job_seconds, seconds),
    ]


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


def _bases(points: Sequence[PointSnapshot]) -> list[str]:
    """How the figures were predicted, in words."""
    guesses = [g for p in points if (f := p.predicted) for g in (f.gpu_bytes, f.host_bytes, f.seconds) if g]
    return [_BASES[basis] for basis in _BASES if any(guess.basis == basis for guess in guesses)]
