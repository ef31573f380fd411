"""What reports of four sweeps printed that were written by hand, as `tables/*.yaml` holds it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "tables"
REPORTS = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@dataclass(frozen=True)
class PrintedJob:
    name: str
    facts: dict[str, Any]

    @property
    def figures(self) -> dict[str, str]:
        """Name in the report's tables -> figure as printed; 96/80 is of the first and the second step."""
        return self.facts["figures"]

    @property
    def scores(self) -> dict[str, str]:
        """Of the first step's score file."""
        return self.facts.get("scores", {})

    def value(self, name: str, step: int = 1) -> float | None:
        """A figure of a step as a number, unrounded where the data says more digits than were printed."""
        if name in self.facts.get("unrounded", {}):
            return float(self.facts["unrounded"][name])
        parts = self.figures[name].split("/")
        return number(parts[min(step, len(parts)) - 1])


@dataclass(frozen=True)
class PrintedReport:
    facts: dict[str, Any]

    @property
    def jobs(self) -> list[PrintedJob]:
        return [PrintedJob(name, facts) for name, facts in self.facts["jobs"].items()]

    def job(self, name: str) -> PrintedJob:
        return PrintedJob(name, self.facts["jobs"][name])


@cache
def printed(name: str) -> PrintedReport:
    return PrintedReport(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def number(words: str) -> float:
    """6,129,414; 5.4%; 1.8e-6; with whatever marks a footnote behind it."""
    return float(words.strip(" *\\†‡%").replace(",", ""))


def agrees(printed: str, cell: str) -> bool:
    """Whether a cell shows a printed figure to the printed precision at least.

    Where both are of two steps each step counts; of a cell of two steps a single figure is the first.
    """
    if "/" in cell and "/" not in printed:
        return agrees(printed, cell.partition("/")[0])
    if "/" in printed:
        parts, cells = printed.split("/"), cell.split("/")
        return len(parts) == len(cells) and all(map(agrees, parts, cells))
    mantissa, _, power = printed.strip("%").replace(",", "").partition("e")
    decimals = len(mantissa.partition(".")[2])
    unit = 10.0 ** (int(power or 0) - decimals)
    try:
        return abs(number(cell) - number(printed)) <= unit / 2 * (1 + 1e-6)
    except ValueError:
        return False
