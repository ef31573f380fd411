"""Where a figure can be looked up: the files of attempts, and lines in them, relative to the report."""

from __future__ import annotations

from collections.abc import Sequence

from reports.markdown import code
from reports.snapshot import PointSnapshot
from trainer_ext import records

_MOST = 2
"""Places that are named; of more, how many."""


def attempt_place(points: Sequence[PointSnapshot], file: str = records.OUTCOME) -> str:
    """A file of each point's deciding attempt."""
    return _named([f"{point.folder}/{file}" for point in points if point.folder])


def metric_places(points: Sequence[PointSnapshot]) -> str:
    """The lines that hold the points' metrics: `ab12/1/metrics.jsonl:1-2`."""
    return _named([place for point in points if point.folder for place in _lines(point)])


def npz_places(points: Sequence[PointSnapshot]) -> str:
    return _named([f"{point.folder}/{file.file}" for point in points if point.folder for file in point.npz])


def _lines(point: PointSnapshot) -> list[str]:
    """One place a file; without known lines the file alone."""
    found: dict[str, list[int]] = {}
    for step in sorted(point.metrics):
        file, _, line = point.step_lines.get(step, records.METRICS).partition(":")
        found.setdefault(file, []).append(int(line) if line.isdecimal() else 0)
    return [f"{point.folder}/{file}{_range(lines)}" for file, lines in found.items()]


def _range(lines: Sequence[int]) -> str:
    first, last = min(lines), max(lines)
    if not first:
        return ""
    return f":{first}" if first == last else f":{first}-{last}"


def _named(places: Sequence[str]) -> str:
    rest = len(places) - _MOST
    return ", ".join(map(code, places[:_MOST])) + (f" and {rest:,} more" if rest > 0 else "")
