"""One key finding, and the words and places that rules have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reports import metrics
from reports.contrasts import Compared, Grid
from reports.markdown import code
from reports.numbers import seconds
from reports.ratios import Ratio
from reports.sections.points import scalar
from reports.snapshot import PointSnapshot, Scalar

SMALL = 0.03
"""Relative difference below which an effect is called small."""
_MOST_SHOWN = 2
_FILE_LINE = re.compile(r"(\S+:\d+): ")
_MOST_PLACES = 4


@dataclass(frozen=True)
class Finding:
    sentence: str
    """Markdown, without a line break."""
    evidence: tuple[str, ...] = ()
    """Files that its figures stand in, relative to the report, with the line where there is one."""


def timed_step(grid: Grid) -> int | None:
    """The step whose times are compared: the one that the tables show."""
    return metrics.first_step(metrics.shown_steps(grid.snapshot))


def metric_places(points: Iterable[PointSnapshot], step: int | None) -> tuple[str, ...]:
    """Where the metrics of a step stand."""
    lines = ((point.folder, point.step_lines.get(step)) for point in points if step is not None)
    return _some(f"{folder}/{line}" for folder, line in lines if folder and line)


def score_places(points: Iterable[PointSnapshot], step: int | None) -> tuple[str, ...]:
    """Which file the scores of a step stand in."""
    files = ((point.folder, metrics.npz_at(point, step)) for point in points)
    return _some(f"{folder}/{file.file}" for folder, file in files if folder and file)


def attempt_places(points: Sequence[PointSnapshot], step: int | None) -> tuple[str, ...]:
    """The first line of a file that each try's verdict stands on, and the metrics of the one that decides."""
    tries = [attempt for point in points for attempt in point.attempts if attempt.folder]
    lines = ((attempt.folder, next(filter(None, map(_FILE_LINE.match, attempt.evidence)), None)) for attempt in tries)
    return _some([*(f"{folder}/{line[1]}" for folder, line in lines if line), *metric_places(points, step)])


def level(axis: str, value: Scalar) -> str:
    """``factor` 64`, and of a word the word alone: ``per_prompt``."""
    words = scalar(value)
    return code(words) if isinstance(value, str) else f"{code(axis)} {words}"


def ratio(value: float) -> str:
    """12.2×; 1.34×; 107×."""
    return f"{value:,.0f}×" if value >= 99.95 else f"{value:.1f}×" if value >= 1.995 else f"{value:.2f}×"


def share(value: float) -> str:
    """0.654 -> 65%; one decimal below ten percent."""
    return f"{100 * value:.0f}%" if abs(value) >= 0.0995 else f"{100 * value:.1f}%"


def long_seconds(value: float) -> str:
    """2,415 s (40 min): minutes beside what nobody divides in the head."""
    minutes = (
        f" ({value / 60:,.0f} min)" if 600 <= value < 36_000 else f" ({value / 3600:.1f} h)" if value >= 36_000 else ""
    )
    return f"{seconds(value)} s{minutes}"


def per_pair(grid: Grid, axis: str, found: Sequence[Compared], figures: Sequence[str]) -> str:
    """Figures of each pair with its setting, of the first few; how many more."""
    several = len(found) > 1
    where = [grid.setting(one.pair[0], axis) for one in found]
    return few(
        [f"{words} at {code(at)}" if at and several else words for words, at in zip(figures, where, strict=True)]
    )


def few(words: Sequence[str]) -> str:
    """The first of many, and how many more."""
    rest = len(words) - _MOST_SHOWN
    return "; ".join(words[:_MOST_SHOWN]) + (f"; {rest} more {'pair' if rest == 1 else 'pairs'}" if rest > 0 else "")


def over_replicates(found: Ratio) -> str:
    """How sure a mean ratio is, where it was repeated."""
    interval = found.interval
    if interval is None:
        return ""
    name = "95%" if found.is_sure else "bootstrap"
    return f"; {name} interval {ratio(interval.low)} to {ratio(interval.high)} over {interval.n} replicates"


def _some(places: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(places))[:_MOST_PLACES]
