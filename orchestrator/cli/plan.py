"""`plan SPEC`: what would run, without starting or writing anything."""

from __future__ import annotations

import argparse
from typing import Any

from orchestrator.cli.arguments import add_json, add_spec, print_json
from orchestrator.planning import Planned, plan_sweep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_spec(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    planned = plan_sweep(args.spec, args.assignments, args.backend, args.profile)
    if args.json:
        print_json(as_json(planned))
    else:
        show(planned)
    return 0


def show(planned: Planned) -> None:
    from orchestrator.tables import plan_table
    from orchestrator.tui import open_console

    spec, target = planned.spec, planned.target
    where = f"{target.backend.name}, profile {planned.profile}" if planned.profile else target.backend.name
    title = f"{spec.name}: {len(planned.points)} points on {where}, {spec.budget.max_parallel} at once"
    open_console().print(plan_table(title, planned.points, target.first_pool))


def as_json(planned: Planned) -> dict[str, Any]:
    """The documented form of `plan --json`."""
    return {
        "sweep": planned.spec.name,
        "points": [
            {
                "id": point.id,
                "name": point.name,
                "parameters": point.parameters,
                "overrides": list(point.overrides),
                "hash": point.hash,
                "pool": planned.target.first_pool,
            }
            for point in planned.points
        ],
    }
