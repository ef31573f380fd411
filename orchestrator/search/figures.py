"""What a search looks at: a figure of one point, by name. Pure.

========================  ========================================================================================
`memory`                  most memory in use on any one card, GiB
`host_memory`             the same of the host
`seconds`                 the deciding attempt, from start to end
`gpu_hours`               of all attempts of the point
`fidelity`                rank correlation of the point's first score file with its reference's (`orchestrator.search.fidelity`)
`npz/std`, ...            a statistic of the score files: valid, mean, std, min, max, nan_in_valid
anything with a slash     a metric that the trainer logs
========================  ========================================================================================

A figure with a value a step is taken at the last step; `mean(NAME)`, `first(...)`, `min(...)`, `max(...)`, `last(...)`
choose otherwise.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.suggest import did_you_mean

FIDELITY = "fidelity"
RESOURCES = ("memory", "host_memory", "seconds", "gpu_hours")
NPZ_STATISTICS = ("valid", "mean", "std", "min", "max", "nan_in_valid")
REDUCTIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda values: values[-1],
    "first": lambda values: values[0],
    "mean": statistics.fmean,
    "min": min,
    "max": max,
}

_REDUCED = re.compile(r"(\w+)\((.+)\)")
_CONSTRAINT = re.compile(r"(.+?)\s*(<=|>=)\s*([^<>=\s]+)")


@dataclass(frozen=True)
class Figure:
    """A figure as the sweep file names it."""

    name: str
    reduction: str = "last"

    @property
    def is_series(self) -> bool:
        """It has a value a step."""
        return "/" in self.name

    def reduce(self, values: Sequence[float]) -> float:
        """Args: values by step, ascending; not empty."""
        return REDUCTIONS[self.reduction](values)


def parse_figure(text: str) -> Figure:
    """Raises: ValueError: no such figure; for the user."""
    reduced = _REDUCED.fullmatch(text.strip())
    if reduced is None:
        return _known(Figure(text.strip()))
    if reduced[1] not in REDUCTIONS:
        raise ValueError(f"there is no {reduced[1]}(); write {', '.join(REDUCTIONS)}, or the name alone")
    figure = _known(Figure(reduced[2].strip(), reduced[1]))
    if not figure.is_series:
        raise ValueError(f"`{figure.name}` is one number; write it without {reduced[1]}()")
    return figure


def _known(figure: Figure) -> Figure:
    group, _, statistic = figure.name.partition("/")
    if not figure.is_series and figure.name not in (*RESOURCES, FIDELITY):
        near = did_you_mean(figure.name, (*RESOURCES, FIDELITY))
        others = f"there are {', '.join((*RESOURCES, FIDELITY))}, and metrics, whose names have a slash"
        raise ValueError(f"`{figure.name}` is no figure of a point; {near or others}")
    if group == "npz" and statistic not in NPZ_STATISTICS:
        raise ValueError(f"there is no `{figure.name}`; score files have {', '.join(NPZ_STATISTICS)}")
    return figure


@dataclass(frozen=True)
class Constraint:
    """`memory <= 75`: what a good point must keep to."""

    text: str
    figure: Figure
    limit: float
    at_most: bool

    def violation(self, value: float) -> float:
        """Above zero: by how much it is broken; zero or below: kept."""
        return value - self.limit if self.at_most else self.limit - value


def parse_constraint(text: str) -> Constraint:
    """Raises: ValueError: not FIGURE <= NUMBER or FIGURE >= NUMBER; for the user."""
    found = _CONSTRAINT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"`{text}` is not a figure, <= or >=, and a number")
    try:
        limit = float(found[3])
    except ValueError:
        raise ValueError(f"`{found[3]}` is no number") from None
    if not math.isfinite(limit):
        raise ValueError(f"`{found[3]}` is no limit")
    return Constraint(text.strip(), parse_figure(found[1]), limit, found[2] == "<=")
