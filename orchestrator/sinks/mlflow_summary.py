"""What a sweep's points add up to: figures of the sweep's own run in MLflow, from those of its points' runs. Pure.

The keys begin with `sweep/`, so that no chart shows a sweep beside its points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

PREFIX = "sweep/"
OF_POINTS = "summary/"
EXTREMES = ("min.", "max.")
"""+ figure: tags with the name of the point that has the least or the most of it."""
BEST_FIRST = (
    "score_std",
    "step_s",
    "gpu_peak_gib",
    "hessian_solve_s",
    "host_peak_gib",
    "gpu_hours",
    "minutes",
    "steps",
)
"""Figures of a point, the most interesting first; others follow by name."""


@dataclass(frozen=True)
class PointFigures:
    """A point's run."""

    name: str
    succeeded: bool
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    """Which points are the least and the most, by name."""


def summarise(points: Sequence[PointFigures]) -> Summary:
    """Least, median and most of every figure that at least one point has; values that are not finite do not count."""
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}
    for key in {key for point in points for key in point.metrics if key.startswith(OF_POINTS)}:
        known = [(value, point.name) for point in points if math.isfinite(value := point.metrics.get(key, math.nan))]
        if not known:
            continue
        short = key.removeprefix(OF_POINTS)
        low, high = min(known), max(known)
        values = {"min": low[0], "median": median(value for value, _ in known), "max": high[0]}
        metrics |= {f"{PREFIX}{short}_{word}": value for word, value in values.items()}
        if low[0] < high[0]:
            tags |= {f"{word}{short}": point for word, (_, point) in zip(EXTREMES, (low, high), strict=True)}
    return Summary(metrics, tags)


def common_figures(points: Sequence[PointFigures]) -> list[str]:
    """Keys of the figures that all points that succeeded have, the most interesting first.

    A figure that is the same for all says nothing and is left out, unless there is no other.

    Parallel coordinates draw only runs that have every column.
    """
    good = [point for point in points if point.succeeded]
    finite = [{key for key, value in point.metrics.items() if math.isfinite(value)} for point in good]
    common = {key for key in (set.intersection(*finite) if finite else set()) if key.startswith(OF_POINTS)}
    told = {key for key in common if len({point.metrics[key] for point in good}) > 1}
    rank = {f"{OF_POINTS}{name}": place for place, name in enumerate(BEST_FIRST)}
    return sorted(told or common, key=lambda key: (rank.get(key, len(rank)), key))
