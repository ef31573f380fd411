"""Figures as a reader sees them: the number, and the last digit that is printed of it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_NUMBER = re.compile(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])|(?<=\+)\d[\d,]*")
_CLOCK = re.compile(r"(?:(\d+) h )?(\d+) (min|s)(?: (\d+) s)?$")


@dataclass(frozen=True)
class Figure:
    value: float
    step: float
    """One unit of the last digit."""

    def says(self, stored: float) -> bool:
        """Whether this is how the stored value is rounded; a trailing zero may have been left out."""
        return abs(self.value - stored) <= self.step / 2 * (1 + 1e-9) + 1e-12 * abs(stored)


def plain(cell: str) -> str:
    """Without code spans, emphasis and footnote marks."""
    return re.sub(r"\\\*|\*\*|†", "", _CODE.sub("", cell))


def figures(cell: str) -> list[Figure]:
    """All numbers of a cell, in order; those in code spans are names."""
    return [_figure(match[0].replace(",", "").replace("−", "-")) for match in _NUMBER.finditer(plain(cell))]


def clock(cell: str) -> Figure:
    """1 h 06 min, 3 min 20 s, 12 s; in seconds."""
    match = _CLOCK.search(cell)
    assert match, cell
    hours, first, unit, rest = match.groups()
    if unit == "min":
        seconds = int(hours or 0) * 3600 + int(first) * 60 + int(rest or 0)
        return Figure(seconds, 120.0 if hours else 1.0)  # whole minutes are cut off, not rounded
    return Figure(int(first), 1.0)


def disagreements(printed: Sequence[Figure], stored: Sequence[float]) -> list[str]:
    if len(printed) != len(stored):
        return [f"{len(printed)} figures printed, {len(stored)} stored"]
    return [
        f"{one.value} printed, {value} stored"
        for one, value in zip(printed, stored, strict=True)
        if not one.says(value)
    ]


def _figure(word: str) -> Figure:
    mantissa, _, power = word.partition("e")
    decimals = len(mantissa.partition(".")[2])
    return Figure(float(word), math.pow(10, int(power or 0) - decimals))
