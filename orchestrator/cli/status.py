"""`status [SWEEP]`: what every point came to, for people or as JSON."""

from __future__ import annotations

import argparse
from typing import Any

from orchestrator.cli.arguments import add_json, add_root, add_sweep_name, open_existing, print_json, sweep_name
from orchestrator.snapshot import sweep_state
from orchestrator.store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sweep_name(parser)
    add_json(parser)
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    _, store = open_existing(args)
    name = sweep_name(args, store)
    if args.json:
        print_json(as_json(store, name))
        return 0
    from orchestrator.tables import points_table
    from orchestrator.tui import open_console

    view = store.view(name)
    open_console().print(points_table(f"{name}: {sweep_state(store.sweep(name), view)}", view))
    return 0


def as_json(store: Store, name: str) -> dict[str, Any]:
    """The documented form of `status --json`."""
    view = store.view(name)
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
    return {"sweep": name, "state": sweep_state(store.sweep(name), view), "points": points}
