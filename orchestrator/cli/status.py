"""`status [SWEEP]`: what every point came to, for people or as JSON."""

from __future__ import annotations

import argparse
from typing import Any

from orchestrator.budget import spent
from orchestrator.cli.arguments import add_json, add_root, add_sweep_name, open_for_reading, print_json, sweep_name
from orchestrator.clock import SystemClock
from orchestrator.ledger import SweepRow, View
from orchestrator.progress import measure
from orchestrator.search.said import search_json, search_lines
from orchestrator.snapshot import sweep_state
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.watching import limits_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sweep_name(parser)
    add_json(parser)
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    _, store = open_for_reading(args)
    name = sweep_name(args, store)
    if args.json:
        print_json(as_json(store, name))
        return 0
    from orchestrator.tables import points_table
    from orchestrator.tui import open_console

    view, row = store.view(name), store.sweep(name)
    console = open_console()
    console.print(points_table(f"{name}: {sweep_state(row, view)}", view))
    for line in [*_search(store, row, view), *_notes(row, view)]:
        console.print(line, soft_wrap=True, highlight=False)
    return 0


def _search(store: Store, row: SweepRow, view: View) -> list[str]:
    """How far a search is, and what is best so far."""
    spec = SweepSpec.model_validate(row.spec)
    names = {point.id: point.name for point in view.points}
    rows = store.trials(row.name) if spec.search else []  # a database of before searches has no table of trials
    return search_lines(spec, rows, names, limits_of(spec, view).gpus_per_attempt)


def _notes(row: SweepRow, view: View) -> list[str]:
    """Why the sweep stopped, if it did, and its GPU-hours where it has GPUs."""
    from orchestrator.tui import gpu_hours

    said = [f"stopped: {view.stopped}"] if view.stopped is not None else []
    limits = limits_of(SweepSpec.model_validate(row.spec), view)
    progress = measure(view, {}, SystemClock().now(), limits)
    return [*said, *filter(None, [gpu_hours(progress)])]


def as_json(store: Store, name: str) -> dict[str, Any]:
    """The documented form of `status --json`."""
    view, row = store.view(name), store.sweep(name)
    spec = SweepSpec.model_validate(row.spec)
    limits = limits_of(spec, view)
    money = spent(view, limits.gpus_per_attempt, limits.time_limit_s, SystemClock().now())
    points = []
    for point in view.points:
        history = view.history(point)
        last = history[-1] if history else None
        points.append(
            {
                "id": point.id,
                "name": point.name,
                "state": point.state.value,
                "verdict": last.verdict.value if last and last.verdict else None,
                "anomalies": [anomaly.code for anomaly in last.anomalies] if last else [],
                "attempts": [
                    {
                        "n": attempt.n,
                        "pool": attempt.pool,
                        "state": attempt.state.value,
                        "verdict": attempt.verdict.value if attempt.verdict else None,
                        "exit_code": attempt.exit_code,
                    }
                    for attempt in history
                ],
            }
        )
    found = search_json(spec, store.trials(name) if spec.search else [])
    return {
        **({"search": found} if found else {}),
        "sweep": name,
        "state": sweep_state(row, view),
        "gpu_hours": {"used": money.used, "running_at_most": money.ahead, "limit": spec.budget.gpu_hours},
        "points": points,
    }
