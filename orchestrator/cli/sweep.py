"""`sweep SPEC`: expand, run, watch, judge, retry, log, and write the report.

Running it again goes on where it stopped: points that are done stay done, jobs that still run are adopted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from orchestrator.cli.arguments import add_root, add_spec, command_line, open_store
from orchestrator.cli.driving import drive_to_end
from orchestrator.cli.plan import measurements, show
from orchestrator.clock import SystemClock
from orchestrator.launch import site_of
from orchestrator.notify import open_notifier
from orchestrator.paths import RootPaths
from orchestrator.planning import plan_sweep
from orchestrator.predicting import with_predictions
from orchestrator.session import register


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_spec(parser)
    parser.add_argument("--max-parallel", type=int, metavar="N", help="points that run at once")
    parser.add_argument("--dry-run", action="store_true", help="show the points and start nothing")
    parser.add_argument("--detach", action="store_true", help="go on in the background; `status` shows how far it is")
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    words = [
        *args.assignments,
        *([f"budget.max_parallel={args.max_parallel}"] if args.max_parallel is not None else []),
    ]
    paths = RootPaths.resolve(args.root)
    planned = plan_sweep(args.spec, words, args.backend, args.profile)
    planned = with_predictions(planned, paths.root, measurements(paths))
    if args.dry_run:
        show(planned)
        return 0
    open_notifier(planned.spec.notify, os.environ)  # what they lack is said before anything starts
    site_of(planned.target.backend, paths)
    store = open_store(paths)
    command = ["python", "-m", "orchestrator", *sys.argv[1:]]
    name = register(planned, store, args.spec, command, SystemClock().now())
    return _detach(paths, name) if args.detach else drive_to_end(paths, store, name)


def _detach(paths: RootPaths, name: str) -> int:
    log = paths.sweep(name) / "orchestrator.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "resume", name, "--root", str(paths.root)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    print(f"sweep {name} goes on in process {child.pid}; log: {log}")
    print(f"  stop driving it: kill {child.pid}    end its jobs: {command_line(paths, 'cancel', name)}")
    return 0
