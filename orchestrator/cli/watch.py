"""`watch [SWEEP]`: follows a sweep until its end, whoever drives it; writes nothing."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orchestrator.cli.arguments import add_root, add_sweep_name, command_line, open_for_reading, sweep_name
from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import StoreError, UsageError
from orchestrator.ledger import View
from orchestrator.lock import seen_held
from orchestrator.paths import RootPaths
from orchestrator.progress import Memory, Progress
from orchestrator.session import exit_code
from orchestrator.snapshot import sweep_state
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.store.reading import is_shared
from orchestrator.watching import Watcher

INTERVAL_S = 2.0
SHORTEST_S = 0.1
FAILED_LOOKS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sweep_name(parser)
    parser.add_argument(
        "--interval",
        type=float,
        default=INTERVAL_S,
        metavar="SECONDS",
        help=f"between two looks (default: {INTERVAL_S:g})",
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON for every change, for programs")
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    if not SHORTEST_S <= args.interval < math.inf:
        raise UsageError(f"--interval {args.interval:g}: seconds between two looks, at least {SHORTEST_S}")
    paths, store = open_for_reading(args)
    name = sweep_name(args, store)
    clock = SystemClock()
    if args.json:
        return exit_code(follow(name, paths, store, clock, args.interval, _as_lines_of_json(name)))
    from orchestrator.tui import display, open_console

    console = open_console()
    with display(console, name, every_s=math.inf) as screen:
        view = follow(
            name, paths, store, clock, args.interval, lambda progress, now, _state: screen.show(progress, now)
        )
    if console.is_terminal:
        from orchestrator.tables import points_table

        console.print(points_table(f"{name}: {sweep_state(store.sweep(name), view)}", view))
    return exit_code(view)


Show = Callable[[Progress, float, str], None]
"""Takes each look: the progress, the time, and the sweep's state in one word."""


def follow(name: str, paths: RootPaths, store: Store, clock: Clock, interval_s: float, show: Show) -> View:
    """Look and show until the sweep is over; the last look is shown as well.

    Raises:
        StoreError: the database could not be read so many times in a row; once may be a file server that hiccups.
    """
    watcher = Watcher(name, paths, store)
    failed = 0
    while True:
        try:
            view, over = _look(watcher, clock.now(), show)
        except StoreError:
            failed += 1
            if failed >= FAILED_LOOKS:
                raise
        else:
            failed = 0
            if over:
                return view
        clock.sleep(interval_s)


def _look(watcher: Watcher, now: float, show: Show) -> tuple[View, bool]:
    """What was seen, and whether the sweep is over."""
    name, paths = watcher.sweep, watcher.paths
    row, view = watcher.store.sweep(name), watcher.store.view(name)
    over = view.finished and row.finished_at is not None  # a search may have all its trials settled and begin more
    progress = watcher.look(view, SweepSpec.model_validate(row.spec), now)
    if not over and progress.stopped is None and is_left_alone(name, paths):
        again = command_line(paths, "resume", name)
        progress = replace(progress, stopped=f"no process is seen that drives it; `{again}`")
    show(progress, now, sweep_state(row, view))
    return view, over


def is_left_alone(name: str, paths: RootPaths) -> bool:
    """Nobody holds the sweep's lock; on a folder that other machines share that cannot be seen from here."""
    return not is_shared(paths.root) and seen_held(paths.lock(name)) is False


def _as_lines_of_json(name: str) -> Show:
    from orchestrator.tui import news

    last: object = None

    def show(progress: Progress, now: float, state: str) -> None:
        nonlocal last
        key = (news(progress), state)
        if key != last:
            last = key
            print(json.dumps(as_json(name, progress, now, state), allow_nan=False), flush=True)

    return show


def as_json(name: str, progress: Progress, now: float, state: str) -> dict[str, Any]:
    """The documented form of a line of `watch --json`: sizes in bytes, times in seconds."""
    left, spent = progress.left, progress.gpu_hours
    return {
        "time": now,
        "sweep": name,
        "state": state,
        "points": {"total": progress.total, **{s.value: count for s, count in sorted(progress.by_state.items())}},
        "running": [
            {
                "name": line.name,
                "attempt": line.n,
                "pool": line.pool,
                "phase": line.state,
                "step": line.step,
                "steps": line.expected_steps,
                "loss": line.loss if line.loss is not None and math.isfinite(line.loss) else None,
                "elapsed": line.elapsed_s,
                "gpu": _memory(line.gpu),
                "host": _memory(line.host),
            }
            for line in progress.running
        ],
        "waiting": [{"why": group.why, "points": list(group.points)} for group in progress.waiting],
        "gpu_hours": {
            "used": spent.used if spent else 0.0,
            "running_at_most": spent.ahead if spent else 0.0,
            "limit": progress.gpu_hours_limit,
        },
        "left": {"value": left.value, "low": left.low, "high": left.high} if left else None,
        "stopped": progress.stopped,
    }


def _memory(found: Memory | None) -> dict[str, int | None] | None:
    return {"used": found.used, "peak": found.peak, "total": found.total} if found else None
