"""The last sections: environment, git, and every anomaly and failure in words."""

from __future__ import annotations

from reports.markdown import code, key_values, one_line, text
from reports.sections.points import jobs, plural
from reports.snapshot import GitState, PointSnapshot, SweepSnapshot

_SHORT_HASH = 10
_MOST_EVIDENCE = 3


def environment(snapshot: SweepSnapshot) -> str:
    rows = key_values(("Field", "Value"), [(text(key), code(value)) for key, value in snapshot.environment.items()])
    return f"### Environment\n\n{rows}" if rows else ""


def git(snapshot: SweepSnapshot) -> str:
    state = snapshot.git
    if state is None:
        return ""
    remote = code(state.remote or "")
    rows = [
        ("Commit", code(state.commit[:_SHORT_HASH])),
        ("Branch", code(state.branch) if state.branch else "detached HEAD"),
        ("Remote", f"{remote} ({code(state.remote_url)})" if remote and state.remote_url else remote),
        ("Push", _yes_no(state.pushed)),
        ("Uncommitted changes", _changes(state)),
    ]
    return f"### Git\n\n{key_values(('Field', 'Value'), rows)}"


def notes(snapshot: SweepSnapshot) -> str:
    """Failures first, then anomalies grouped by code."""
    bullets = [_failure(point) for point in snapshot.points if point.state in ("failed", "blocked", "pruned")]
    for found in sorted({found for point in snapshot.points for found, _ in point.anomalies}):
        bullets.append(_anomaly(snapshot, found))
    return "### Notes\n\n" + "\n".join(f"- {bullet}" for bullet in bullets) if bullets else ""


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


def _changes(state: GitState) -> str:
    if state.dirty is None:
        return ""
    return f"Yes, sha256 {code(state.diff_sha256[:_SHORT_HASH])}" if state.diff_sha256 else _yes_no(state.dirty)


def _yes_no(value: bool | None) -> str:
    return "" if value is None else "Yes" if value else "No"
