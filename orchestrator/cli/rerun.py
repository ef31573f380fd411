"""`rerun POINT...`: try settled points again, with fresh budgets; what was tried before stays on record.

A point that succeeded is not tried again: its result stands. Copy the sweep under another name for that.
"""

from __future__ import annotations

import argparse

from orchestrator.cli.arguments import add_root, find_point, open_existing
from orchestrator.cli.driving import drive_to_end
from orchestrator.errors import UsageError
from orchestrator.importing import BACKEND
from orchestrator.ledger import PointRow
from orchestrator.model import POINT_TRANSITIONS, PointState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("points", nargs="+", metavar="POINT", help="ids, beginnings of ids, or names")
    parser.add_argument("--sweep", help="where to look (default: all sweeps, newest first)")
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    paths, store = open_existing(args)
    points = [find_point(store, word, args.sweep) for word in args.points]
    for point in points:
        _refuse(point)
        if store.sweep(point.sweep).backend == BACKEND:
            raise UsageError(f"{point.name} was run by someone else; it cannot be run again from here")
    if len({point.sweep for point in points}) > 1:
        raise UsageError("these points are of several sweeps; rerun one sweep's points at a time")
    for point in points:
        store.rerun(point)
    return drive_to_end(paths, store, points[0].sweep)


def _refuse(point: PointRow) -> None:
    if point.state is PointState.SUCCEEDED:
        raise UsageError(f"{point.name} succeeded; its result stands")
    if not point.state.is_terminal or PointState.READY not in POINT_TRANSITIONS[point.state]:
        raise UsageError(
            f"{point.name} is {point.state.value}; only what failed, was cancelled or blocked is tried again"
        )
