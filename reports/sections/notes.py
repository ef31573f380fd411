"""Every failure and every anomaly in words."""

from __future__ import annotations

from typing import Any

from reports.markdown import code, one_line, text
from reports.numbers import plural
from reports.sections.points import jobs
from reports.snapshot import PointSnapshot, SweepSnapshot

_MOST_EVIDENCE = 3


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """Failures first, then anomalies grouped by code."""
    bullets = [_failure(point) for point in snapshot.points if point.state in ("failed", "blocked", "pruned")]
    for found in sorted({found for point in snapshot.points for found, _ in point.anomalies}):
        bullets.append(_anomaly(snapshot, found))
    return {"bullets": bullets} if bullets else None


def _failure(point: PointSnapshot) -> str:
    words = f"**{code(point.name)} {text(point.state)}**"
    why = [code(point.verdict)] if point.verdict else []
    why += [text(point.reason)] if point.reason else []
    tries = f" after {plural(len(point.attempts), 'attempt')}" if point.attempts else ""
    evidence = [code(one_line(line)) for line in point.evidence[:_MOST_EVIDENCE]]
    return words + tries + (f": {', '.join(why)}" if why else "") + (f" — {'; '.join(evidence)}" if evidence else "")


def _anomaly(snapshot: SweepSnapshot, found: str) -> str:
    """One bullet where all say the same; else one line a message below the code."""
    by_message: dict[str, list[PointSnapshot]] = {}
    for point in snapshot.points:
        for _, message in (pair for pair in point.anomalies if pair[0] == found):
            by_message.setdefault(text(message), []).append(point)
    lines = [f"{jobs(points, len(snapshot.points))}: {message}" for message, points in by_message.items()]
    said = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n  - {line}" for line in lines)
    return f"**{code(found)}**{said}"
