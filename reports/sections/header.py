"""Title, and the table of what was asked, what came of it and under which conditions.

The title's day and the row "Started / finished" are the only places of a report that show the wall clock: two runs of a
sweep that did the same work differ there and in measured figures alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from reports.markdown import code, codes, one_line, text
from reports.numbers import day, duration, plural, seconds, stamp
from reports.sections.points import axis_values, fixed_settings, varying_axes
from reports.snapshot import SweepSnapshot

_MOST_LEVELS, _FIRST_LEVELS = 16, 8


def context(snapshot: SweepSnapshot) -> dict[str, Any]:
    """The title, and the cells of the table Request, Delivery, Scope, ..."""
    name = text(one_line(snapshot.name))
    return {
        "title": name if snapshot.created_at is None else f"{day(snapshot.created_at)} - {name}",
        "delivery": delivery(snapshot, "with anomalies (see Notes)"),
        "scope": _scope(snapshot),
        "clock": _clock(snapshot),
    }


def delivery(snapshot: SweepSnapshot, flagged_words: str = "with anomalies") -> str:
    """How many points came to what end, in one cell."""
    total = len(snapshot.points)
    states = Counter(point.state for point in snapshot.points)
    parts = [f"{states.pop('succeeded', 0)} of {plural(total, 'point')} succeeded"]
    parts += [f"{number} {text(state)}" for state, number in sorted(states.items())]
    retried = sum(len(point.attempts) > 1 for point in snapshot.points)
    flagged = sum(bool(point.anomalies) for point in snapshot.points)
    if retried:
        parts.append(f"{retried} took more than one attempt")
    if flagged:
        parts.append(f"{flagged} {flagged_words}")
    sweep = f"Sweep {text(snapshot.state)}: " if snapshot.state not in ("", "succeeded", "finished") else ""
    return sweep + ", ".join(parts) + "."


def _scope(snapshot: SweepSnapshot) -> str:
    axes = " × ".join(f"{code(axis)} {{{_levels(axis_values(snapshot, axis))}}}" for axis in varying_axes(snapshot))
    pools = sorted({attempt.pool for point in snapshot.points for attempt in point.attempts if attempt.pool})
    parts = [
        axes,
        f"config {code(snapshot.config)}" if snapshot.config else "",
        f"profile {code(snapshot.profile)}" if snapshot.profile else "",
        f"{'pool' if len(pools) == 1 else 'pools'} {codes(pools)}" if pools else "",
        codes(fixed_settings(snapshot)),
    ]
    return "; ".join(part for part in parts if part)


def _levels(values: Sequence[str]) -> str:
    """All of a few; the first of many, and how many more."""
    if len(values) <= _MOST_LEVELS:
        return codes(values)
    return f"{codes(values[:_FIRST_LEVELS])} and {len(values) - _FIRST_LEVELS:,} more"


def _clock(snapshot: SweepSnapshot) -> str:
    start, end = snapshot.created_at, snapshot.finished_at
    if start is None:
        return ""
    parts = [stamp(start)]
    if end is not None:
        parts = [f"{stamp(start)} / {stamp(end)}", duration(end - start)]
    if snapshot.gpu_hours is not None:
        limit = f" of {snapshot.gpu_hours_limit:g}" if snapshot.gpu_hours_limit is not None else ""
        parts.append(f"{seconds(snapshot.gpu_hours)}{limit} GPU hours")
    return ", ".join(parts)
