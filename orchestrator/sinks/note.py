"""The part of a report that stands where only a few thousand characters fit: a run's description. Pure.

Taken are the opening table, the findings and the results, in this order and as far as they fit; a table that does not fit
loses its last rows. Pictures are left out: their paths lead nowhere from there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LIMIT = 4800
"""Characters."""
WANTED = ("key findings", "experiment results", "statistics", "validation")
"""Sections in the order of their importance, by what their headings hold."""

_HEADING = re.compile(r"#{1,6} +(.+)")
_IMAGE = re.compile(r"!\[[^\]]*\]\([^)]*\)|<img\b[^>]*>")
_REST = "The rest is in `report.md` among the artifacts."


@dataclass(frozen=True)
class _Section:
    title: str
    lines: tuple[str, ...]
    """With the heading."""


def summary_note(report: str, limit: int = LIMIT) -> str:
    """The summary of a Markdown report, of at most `limit` characters."""
    sections = _sections(_IMAGE.sub("", report).splitlines())
    if not sections:
        return ""
    named = {wanted: [s for s in sections[1:] if wanted in s.title.lower()] for wanted in WANTED}
    chosen = [sections[0], *(section for wanted in WANTED for section in named[wanted])]
    room = limit - len(_REST) - 2
    kept = []
    for section in chosen:
        lines = _that_fit(section.lines, room)
        if len(lines) < min(len(section.lines), 3):  # a heading alone says nothing
            break
        text = "\n".join(lines).strip("\n")
        kept.append(text)
        room -= len(text) + 2
    return "\n\n".join([*kept, _REST])


def _sections(lines: Sequence[str]) -> list[_Section]:
    """What stands before the second heading is the first section: the title with its table."""
    starts = [n for n, line in enumerate(lines) if _HEADING.match(line)]
    bounds = [0, *(n for n in starts[1:]), len(lines)] if starts else [0, len(lines)]
    found = [tuple(lines[begin:end]) for begin, end in pairwise(bounds)]
    return [_Section(_title(part), part) for part in found if any(line.strip() for line in part)]


def _title(lines: Sequence[str]) -> str:
    heading = next((match for line in lines if (match := _HEADING.match(line))), None)
    return heading[1] if heading else ""


def _that_fit(lines: Sequence[str], room: int) -> list[str]:
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return kept
