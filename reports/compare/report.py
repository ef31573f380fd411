"""The comparison of two sweeps as Markdown and as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports import appendix
from reports.compare.differences import MEASURES, Difference, Measure, Summary, differences, summary
from reports.compare.matching import Key, Matching, match, unshared_axes
from reports.drawing import Section, check_names, draw_context
from reports.markdown import Column, code, codes, text
from reports.numbers import statistics
from reports.resampling import CONFIDENCE, best_coverage
from reports.sections import changes
from reports.sections.git import SHORT_HASH
from reports.sections.header import delivery
from reports.sections.points import fixed_settings, jobs
from reports.snapshot import ChangesSnapshot, PointSnapshot, SweepSnapshot

SECTION = Section("compare", "reports.compare.report")
MOST_SETTINGS = 24
"""Rows of a table; of more, those that changed most, in both directions."""


@dataclass(frozen=True)
class Compared:
    """Everything that a comparison says."""

    a: SweepSnapshot
    b: SweepSnapshot
    matching: Matching
    changes: ChangesSnapshot | None


def compare(a: SweepSnapshot, b: SweepSnapshot, changes: ChangesSnapshot | None = None) -> Compared:
    """Args:
    changes: what became of the code from A's commit to B's.
    """
    return Compared(a, b, match(a, b), changes)


def render(compared: Compared, templates: Sequence[Path] = ()) -> str:
    """The comparison as GitHub-flavoured Markdown.

    Args:
        templates: folders that may hold a user's own `compare.md.j2`.

    Raises:
        reports.drawing.TemplateProblem: it cannot be used.
    """
    check_names(templates)
    return draw_context(SECTION, context(compared), compared.b, templates) + "\n"


def context(compared: Compared) -> dict[str, Any]:
    a, b, matching = compared.a, compared.b, compared.matching
    tables = [table for measure in MEASURES if (table := _table(measure, matching)) is not None]
    replicates = min((len(pairs) for pairs in matching.settings.values() if len(pairs) > 1), default=0)
    moved = SweepSnapshot(b.name, git=b.git, changes=compared.changes)
    return {
        "a": a,
        "b": b,
        "facts": _facts(a, b),
        "changes": changes.context(moved),
        "axes": codes(matching.axes),
        "settings_only": [("A", _settings_only(a, b)), ("B", _settings_only(b, a))],
        "pairs": len(matching.pairs),
        "settings": len(matching.settings),
        "summary": _summary(matching),
        "tables": tables,
        "replicates": replicates,
        "confidence": f"{100 * CONFIDENCE:.0f}%",
        "best_coverage": f"{100 * best_coverage(replicates):.0f}%" if best_coverage(replicates) < CONFIDENCE else "",
        "unmatched": _unmatched(compared),
        "ends": _ends(matching),
    }


def to_csv(compared: Compared) -> str:
    """A line a figure and setting, in full."""
    matching = compared.matching
    axes = list(dict.fromkeys(axis for setting in matching.settings for axis, _ in setting))
    lines: list[Sequence[object]] = [["figure", *axes, "replicates", "a", "b", "difference", "low", "high", "ratio"]]
    for measure in MEASURES:
        for one in differences(measure, matching):
            low, high = (one.interval.low, one.interval.high) if one.interval else (None, None)
            levels = [dict(one.setting).get(axis) for axis in axes]
            title = measure.title.replace("`", "")
            lines.append([title, *levels, one.replicates, one.a, one.b, one.change, low, high, one.ratio])
    return appendix.to_csv(lines)


def _facts(a: SweepSnapshot, b: SweepSnapshot) -> list[tuple[str, str, str]]:
    """Rows of the table of both sweeps, without those that neither knows."""
    told: dict[str, Callable[[SweepSnapshot], str]] = {
        "Sweep": lambda s: code(s.name),
        "Request": lambda s: text(s.description),
        "Delivery": delivery,
        "Commit": lambda s: code(s.git.commit[:SHORT_HASH]) if s.git else "",
        "Pools": lambda s: codes(sorted({t.pool for p in s.points for t in p.attempts if t.pool})),
    }
    rows = [(title, tell(a), tell(b)) for title, tell in told.items()]
    names = list(dict.fromkeys((*a.environment, *b.environment)))
    rows += [
        (text(name), code(a.environment.get(name, "")), code(b.environment.get(name, "")))
        for name in names
        if a.environment.get(name) != b.environment.get(name)
    ]
    return [row for row in rows if row[1] or row[2]]


def _settings_only(one: SweepSnapshot, other: SweepSnapshot) -> str:
    """Settings and axes that the other sweep does not have, or has otherwise."""
    shared = {*fixed_settings(other)}
    axes = [f"{axis} ∈ {', '.join(values)}" for axis, values in unshared_axes(one, other).items() if len(values) > 1]
    return codes([*(setting for setting in fixed_settings(one) if setting not in shared), *axes])


def _summary(matching: Matching) -> list[Column]:
    found = [(measure, one) for measure in MEASURES if (one := summary(measure, matching)) is not None]
    return [
        Column("Figure", [measure.title for measure, _ in found]),
        Column("Settings", [str(one.settings) for _, one in found], numeric=True),
        Column("Median B / A", [_ratio(one.median) for _, one in found], numeric=True),
        Column("Smallest", [_ratio(one.low) if one.settings > 1 else "" for _, one in found], numeric=True),
        Column("Largest", [_ratio(one.high) if one.settings > 1 else "" for _, one in found], numeric=True),
        Column("Mean over replicates", [_over_replicates(one) for _, one in found], numeric=True),
    ]


def _over_replicates(one: Summary) -> str:
    found = one.interval
    return f"{_ratio(found.mean)} ({_ratio(found.low)} – {_ratio(found.high)})" if found else ""


def _table(measure: Measure, matching: Matching) -> dict[str, Any] | None:
    found = differences(measure, matching)
    if not found:
        return None
    shown = _most_changed(found)
    bounds = [bound for one in shown for bound in ([one.interval.low, one.interval.high] if one.interval else [])]
    figures = [value for one in shown for value in (one.a, one.b, one.change)] + bounds
    written = [measure.written(v) for v in figures] if measure.written else statistics(figures)
    ends = iter(written[3 * len(shown) :])
    intervals = [f"{next(ends)} – {next(ends)}" if one.interval else "" for one in shown]
    columns = [
        *_setting_columns([one.setting for one in shown]),
        Column("Replicates", [str(one.replicates) if one.replicates > 1 else "" for one in shown], numeric=True),
        Column("A", written[: 3 * len(shown) : 3], numeric=True),
        Column("B", written[1 : 3 * len(shown) : 3], numeric=True),
        Column("B − A", written[2 : 3 * len(shown) : 3], numeric=True),
        Column(f"{100 * CONFIDENCE:.0f}% interval", intervals, numeric=True),
        Column("B / A", ["" if one.ratio is None else _ratio(one.ratio) for one in shown], numeric=True),
    ]
    return {"title": measure.title, "columns": columns, "shown": len(shown), "settings": len(found)}


def _most_changed(found: Sequence[Difference]) -> list[Difference]:
    """All of a few; else those with the largest and the smallest ratios, in the order of the sweep."""
    if len(found) <= MOST_SETTINGS:
        return list(found)
    ranked = sorted(found, key=lambda one: (one.ratio is None, one.ratio or 0.0, one.setting))
    chosen = {one.setting for one in (*ranked[: MOST_SETTINGS // 2], *ranked[-(MOST_SETTINGS // 2) :])}
    return [one for one in found if one.setting in chosen]


def _setting_columns(settings: Sequence[Key]) -> list[Column]:
    """One column for each axis that varies among them; the first where none does."""
    axes = list(dict.fromkeys(axis for setting in settings for axis, _ in setting))
    varying = [axis for axis in axes if len({dict(setting).get(axis) for setting in settings}) > 1] or axes[:1]
    shown = [Column(code(axis), [code(dict(setting).get(axis, "")) for setting in settings]) for axis in varying]
    return shown or [Column("Setting", ["the only one" for _ in settings])]


def _unmatched(compared: Compared) -> list[str]:
    """What was not compared, and why."""
    matching = compared.matching
    groups: list[tuple[str, Sequence[PointSnapshot], int]] = [
        ("only in A", matching.only_a, len(compared.a.points)),
        ("only in B", matching.only_b, len(compared.b.points)),
        ("several points of one sweep have the same shared parameters", matching.ambiguous, 0),
    ]
    said = [f"{why}: {jobs(points, total)}" for why, points, total in groups if points]
    by_obstacle: dict[str, list[PointSnapshot]] = {}
    for pair in matching.pairs:
        if pair.obstacle:
            by_obstacle.setdefault(pair.obstacle, []).append(pair.b)
    return said + [f"{text(why)}: {jobs(points, 0)}" for why, points in by_obstacle.items()]


def _ends(matching: Matching) -> list[Column]:
    """Points that came to another end, or carry other flags."""
    pairs = [pair for pair in matching.pairs if _end(pair.a) != _end(pair.b)][:MOST_SETTINGS]
    return [
        Column("Job", [code(pair.b.name) for pair in pairs]),
        Column("A", [_end(pair.a) for pair in pairs]),
        Column("B", [_end(pair.b) for pair in pairs]),
    ]


def _end(point: PointSnapshot) -> str:
    verdict = f" {code(point.verdict)}" if point.verdict and point.state != "succeeded" else ""
    flags = codes(dict.fromkeys(found for found, _ in point.anomalies))
    return f"{text(point.state)}{verdict}" + (f" ({flags})" if flags else "")


def _ratio(value: float) -> str:
    return f"{value:.3f}×" if value < 10 else f"{value:,.1f}×"
