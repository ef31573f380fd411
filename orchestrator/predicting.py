"""Predictions for the points of a planned sweep: the preflight with what it needs from outside, a model's config.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from orchestrator import patches
from orchestrator.ledger import Measurement
from orchestrator.model import Estimate, Point
from orchestrator.placement import MIB, forecast_pool
from orchestrator.planning import Planned, Target
from orchestrator.preflight.calibrate import calibrated
from orchestrator.preflight.forecast import NO_POOL, predict
from orchestrator.preflight.models import ModelShape, known_shape, shape_from_config
from orchestrator.preflight.workload import LookUp
from orchestrator.search.points import trial_count
from orchestrator.spec_model import SweepSpec


@dataclass(frozen=True)
class GpuHours:
    """Of a whole sweep, before it starts; retries are not counted."""

    expected: Estimate | None
    """None where a point's time is unknown."""
    at_most: float | None
    """By the time limit of each attempt; None without one."""


def with_predictions(planned: Planned, root: Path, measurements: Sequence[Measurement] = ()) -> Planned:
    """The same sweep, each point with what it will take.

    Args:
        root: the state folder, for models that lie below it.
        measurements: what earlier attempts were seen to take.
    """
    predicted = predictor(planned.spec, planned.target, root, measurements)
    points, probes = (tuple(predicted(point) for point in points) for points in (planned.points, planned.probes))
    return replace(planned, points=points, probes=probes)


def predictor(
    spec: SweepSpec, target: Target, root: Path, measurements: Sequence[Measurement] = ()
) -> Callable[[Point], Point]:
    """What gives a point what it will take; arguments as in `with_predictions`."""
    pools = {name: target.pools[name] for name in target.ladder}
    cards = {name: pool.memory_mib for name, pool in pools.items()}
    in_bytes = {name: None if mib is None else mib * MIB for name, mib in cards.items()}
    shape_of = model_shapes(root, spec.preflight.model)

    def predicted(point: Point) -> Point:
        formula = predict(point.config, in_bytes, shape_of)
        for name, pool in pools.items():
            if patch := patches.of_pool(pool, point.config, spec.alias):
                there = predict(patches.apply(point.config, patch), {name: in_bytes[name]}, shape_of).formula
                formula = replace(formula, formula={**formula.formula, **there}, on={**formula.on, **there})
        return replace(point, predicted=calibrated(formula, list(cards) or [NO_POOL], measurements))

    return predicted


def model_shapes(root: Path, named: str | None = None) -> LookUp:
    """The shape behind a model's path: its own config.json, else the model that the sweep file names, else its name."""

    @lru_cache(maxsize=256)
    def shape_of(path: str) -> ModelShape | None:
        folder = Path(path.replace("{root}", str(root)))
        return _read_shape(folder / "config.json") or known_shape(named or path)

    return shape_of


def _read_shape(file: Path) -> ModelShape | None:
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return shape_from_config(config) if isinstance(config, dict) else None


def first_pool(planned: Planned, point: Point) -> str | None:
    """Where the point would start."""
    ladder = [planned.target.pools[name] for name in planned.target.ladder]
    if not planned.spec.preflight.choose_pool:
        return planned.target.first_pool
    return forecast_pool(point.predicted, ladder).pool


def sweep_gpu_hours(planned: Planned) -> GpuHours:
    """Of one attempt for each point, on the pool where it would start; of a search, as its corners say."""
    spec = planned.spec
    if spec.search is not None:
        return _search_gpu_hours(planned, trial_count(spec))
    gpus = spec.resources.gpus if planned.target.pools else 0
    times = [_seconds(planned, point) for point in planned.points]
    known = [time for time in times if time is not None]
    expected = None
    if len(known) == len(times):
        value, low, high = (
            sum(getattr(time, part) for time in known) * gpus / 3600 for part in ("value", "low", "high")
        )
        expected = Estimate(value, low, high, known[0].basis if known else "shapes")
    limit = spec.resources.time_s
    return GpuHours(expected, None if limit is None else len(times) * gpus * limit / 3600)


def _search_gpu_hours(planned: Planned, trials: int) -> GpuHours:
    """A trial takes between the least and the most that its corners take; each configuration is run once."""
    spec = planned.spec
    gpus = spec.resources.gpus if planned.target.pools else 0
    times = [_seconds(planned, point) for point in planned.probes]
    known = [time for time in times if time is not None]
    each, expected = trials * gpus / 3600, None
    if known and len(known) == len(times):
        value = sum(time.value for time in known) / len(known)
        low, high = min(time.low for time in known), max(time.high for time in known)
        expected = Estimate(value * each, low * each, high * each, known[0].basis)
    limit = spec.resources.time_s
    return GpuHours(expected, None if limit is None else each * limit)


def _seconds(planned: Planned, point: Point) -> Estimate | None:
    forecast = point.predicted.on.get(first_pool(planned, point) or NO_POOL) if point.predicted else None
    return forecast.seconds if forecast else None
