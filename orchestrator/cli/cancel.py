"""`cancel SWEEP`: waiting points are cancelled, running jobs are asked to end, and their ends are judged."""

from __future__ import annotations

import argparse

from orchestrator.cli.arguments import add_root, add_sweep_name, open_existing, sweep_name
from orchestrator.cli.driving import drive_to_end
from orchestrator.model import PointState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sweep_name(parser)
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    paths, store = open_existing(args)
    name = sweep_name(args, store)
    for point in store.points(name):
        if point.state in (PointState.PLANNED, PointState.READY):
            store.move_point(point, PointState.CANCELLED, "cancelled before it started")
    for attempt in store.attempts(name):
        if attempt.state.is_live and not attempt.cancel_requested:
            store.request_cancel(attempt)
    # whoever drives the sweep passes the request on; when nobody does, this process does
    return drive_to_end(paths, store, name)
