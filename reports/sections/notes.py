"""Every failure and every anomaly in words: what was seen, what it comes from, what was done."""

from __future__ import annotations

from typing import Any

from reports.markdown import code, literal, text
from reports.numbers import plural
from reports.sections.anomaly_words import WORDS
from reports.sections.git import SHORT_HASH
from reports.sections.points import jobs
from reports.snapshot import PointSnapshot, SweepSnapshot

MOST_FAILURES = 20
"""Kinds of failures that are told one by one."""
_MOST_MESSAGES = 10
_MOST_EVIDENCE = 3


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """Failures first, then anomalies by code, then the code that nobody else can have."""
    failures = _failures(snapshot)
    bullets = failures[:MOST_FAILURES]
    if len(failures) > MOST_FAILURES:
        bullets.append(f"and {plural(len(failures) - MOST_FAILURES, 'kind')} of failure more, in `report-points.csv`")
    for found in sorted({found for point in snapshot.points for found, _ in point.anomalies}):
        bullets.append(_anomaly(snapshot, found))
    bullets += _uncommitted(snapshot)
    return {"bullets": bullets} if bullets else None


def _failures(snapshot: SweepSnapshot) -> list[str]:
    """One bullet for all points that failed alike."""
    alike: dict[tuple[str, str | None, str | None, int], list[PointSnapshot]] = {}
    for point in snapshot.points:
        if point.state in ("failed", "blocked", "pruned"):
            alike.setdefault((point.state, point.verdict, point.reason, len(point.attempts)), []).append(point)
    return [_failure(points, len(snapshot.points)) for points in alike.values()]


def _failure(points: list[PointSnapshot], total: int) -> str:
    first = points[0]
    words = f"**{jobs(points, total)} {text(first.state)}**"
    tries = f" after {plural(len(first.attempts), 'attempt')}" if first.attempts else ""
    why = [code(first.verdict)] if first.verdict else []
    why += [literal(first.reason)] if first.reason else []
    evidence = [code(line, in_table=False) for line in first.evidence[:_MOST_EVIDENCE]]
    return words + tries + (f": {', '.join(why)}" if why else "") + (f" — {'; '.join(evidence)}" if evidence else "")


def _anomaly(snapshot: SweepSnapshot, found: str) -> str:
    """One bullet where all say the same; else one line a message below the code. Then the cause, and what was done."""
    by_message: dict[str, list[PointSnapshot]] = {}
    for point in snapshot.points:
        for _, message in (pair for pair in point.anomalies if pair[0] == found):
            by_message.setdefault(text(message), []).append(point)
    lines = [f"{jobs(points, len(snapshot.points))}: {message}" for message, points in by_message.items()]
    if len(lines) > _MOST_MESSAGES:
        rest = plural(len(lines) - _MOST_MESSAGES, "message")
        lines = [*lines[:_MOST_MESSAGES], f"and {rest} more, in `report-points.csv`"]
    below = lines if len(lines) > 1 else []
    words = WORDS.get(found)
    if words:
        below += [f"Usual cause: {words.cause}.", f"Done: {words.done}{_moves(snapshot, found)}."]
    said = f" {lines[0]}" if len(lines) == 1 else ""
    return f"**{code(found)}**{said}" + "".join(f"\n  - {line}" for line in below)


def _moves(snapshot: SweepSnapshot, found: str) -> str:
    """Where the points went that had run out of memory."""
    if found != "oom_recovered":
        return ""
    paths: dict[str, list[PointSnapshot]] = {}
    for point in snapshot.points:
        if point.has_anomaly(found):
            paths.setdefault(" → ".join(code(a.pool or "here") for a in point.attempts), []).append(point)
    return "".join(f"; {jobs(points, len(snapshot.points))}: {path}" for path, points in paths.items())


def _uncommitted(snapshot: SweepSnapshot) -> list[str]:
    git = snapshot.git
    if git is None or not git.dirty:
        return []
    which = f" (sha256 {code(git.diff_sha256[:SHORT_HASH])})" if git.diff_sha256 else ""
    return [f"The code had uncommitted changes{which}: the commit alone does not reproduce these figures."]
