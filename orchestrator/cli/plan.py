"""`plan SPEC`: what would run and what it would take, without starting or writing anything."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from orchestrator.cli.arguments import add_json, add_root, add_spec, open_store, print_json
from orchestrator.errors import StoreError
from orchestrator.ledger import Measurement
from orchestrator.model import Estimate, Forecast, Point
from orchestrator.paths import RootPaths
from orchestrator.placement import fits
from orchestrator.planning import Planned, plan_sweep
from orchestrator.predicting import first_pool, sweep_gpu_hours, with_predictions
from orchestrator.search.points import grid_trials, trial_count
from orchestrator.search.said import plan_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_spec(parser)
    add_json(parser)
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    paths = RootPaths.resolve(args.root)
    planned = plan_sweep(args.spec, args.assignments, args.backend, args.profile)
    planned = with_predictions(planned, paths.root, measurements(paths))
    if args.json:
        print_json(as_json(planned))
    else:
        show(planned)
    return 0


def measurements(paths: RootPaths) -> Sequence[Measurement]:
    """What earlier attempts under this root were seen to take; a database that cannot serve only costs precision."""
    if not paths.database.exists():
        return ()
    try:
        return open_store(paths).measurements()
    except StoreError as error:
        print(f"predictions without earlier measurements: {error}", file=sys.stderr)
        return ()


def show(planned: Planned) -> None:
    from orchestrator.tables import plan_table
    from orchestrator.tui import open_console

    spec, target = planned.spec, planned.target
    where = f"{target.backend.name}, profile {planned.profile}" if planned.profile else target.backend.name
    title = f"{spec.name}: {len(planned.points)} points on {where}, {spec.budget.max_parallel} at once"
    console = open_console()
    if spec.search is None:
        console.print(plan_table(title, [(point, *_chosen(planned, point)) for point in planned.points]))
    else:
        corners = f"{spec.name} on {where}, {spec.budget.max_parallel} at once; the corners of what is searched:"
        console.print(plan_table(corners, [(point, *_chosen(planned, point)) for point in planned.probes]))
    for line in [*plan_lines(spec), *_too_large(planned), *_gpu_hours(planned)]:
        console.print(line, soft_wrap=True, highlight=False)


def _chosen(planned: Planned, point: Point) -> tuple[str | None, Forecast | None]:
    pool = first_pool(planned, point)
    return pool, point.predicted.on.get(pool or "") if point.predicted else None


def _too_large(planned: Planned) -> list[str]:
    """A warning for points that no pool is expected to hold."""
    ladder = [planned.target.pools[name] for name in planned.target.ladder]
    if not ladder:
        return []
    names = [point.name for point in (*planned.points, *planned.probes) if fits(point.predicted, ladder[-1]) is False]
    return [f"may not fit even {ladder[-1].name}: {', '.join(names)}"] if names else []


def _gpu_hours(planned: Planned) -> list[str]:
    hours, limit = sweep_gpu_hours(planned), planned.spec.budget.gpu_hours
    if not planned.target.pools or not planned.spec.resources.gpus:
        return []
    said = []
    if hours.expected is not None:
        said.append(f"about {hours.expected.value:.1f} ({hours.expected.low:.1f} to {hours.expected.high:.1f})")
    if hours.at_most is not None:
        said.append(f"at most {hours.at_most:.1f} by the time limit, without retries")
    said.append(f"budget {limit:g}" if limit is not None else "no budget")
    return [f"GPU-hours: {', '.join(said)}"]


def as_json(planned: Planned) -> dict[str, Any]:
    """The documented form of `plan --json`."""
    hours = sweep_gpu_hours(planned)
    return {
        "sweep": planned.spec.name,
        "gpu_hours": {
            "expected": _plain(hours.expected),
            "at_most": hours.at_most,
            "limit": planned.spec.budget.gpu_hours,
        },
        "points": [_point(planned, point) for point in planned.points],
        **_search(planned),
    }


def _search(planned: Planned) -> dict[str, Any]:
    """What is searched, and the points at its corners; nothing without a search."""
    search = planned.spec.search
    if search is None:
        return {}
    said = {
        "trials": trial_count(planned.spec),
        "sampler": search.sampler.name,
        "seed": search.seed,
        "params": search.params,
        "objectives": search.objectives,
        "constraints": list(search.constraints),
        "first": grid_trials(planned.spec),
        "corners": [_point(planned, point) for point in planned.probes],
    }
    return {"search": said}


def _point(planned: Planned, point: Point) -> dict[str, Any]:
    pool, forecast = _chosen(planned, point)
    predicted = None
    if forecast is not None and forecast != Forecast():
        predicted = {
            "gpu_bytes": _plain(forecast.gpu_bytes),
            "host_bytes": _plain(forecast.host_bytes),
            "step_s": _plain(forecast.step_s),
            "seconds": _plain(forecast.seconds),
        }
    return {
        "id": point.id,
        "name": point.name,
        "parameters": point.parameters,
        "overrides": list(point.overrides),
        "hash": point.hash,
        "pool": pool,
        "predicted": predicted,
    }


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return dataclasses.asdict(estimate) if estimate else None
