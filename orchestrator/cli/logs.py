"""`logs POINT`: the console log of a point's newest attempt, or of a given one."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from orchestrator.cli.arguments import add_root, find_point, open_existing
from orchestrator.errors import UsageError
from orchestrator.store import Store

FOLLOW_EVERY_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("point", help="id, beginning of an id, or name of a point")
    parser.add_argument("--sweep", help="where to look (default: all sweeps, newest first)")
    parser.add_argument("--attempt", type=int, metavar="N", help="which try (default: the newest)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the log grows, until the attempt ends")
    parser.add_argument("--path", action="store_true", help="print the log's path and nothing else")
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    paths, store = open_existing(args)
    point = find_point(store, args.point, args.sweep)
    numbers = [row.n for row in store.attempts(point.sweep) if row.point == point.id]
    if not numbers:
        raise UsageError(f"{point.name} has not started yet")
    number = numbers[-1] if args.attempt is None else args.attempt
    if number not in numbers:
        raise UsageError(f"{point.name} has attempts {', '.join(map(str, numbers))}, not {number}")
    log = paths.attempt(point.sweep, point.id, number).console
    if args.path:
        print(log)
    elif args.follow:
        _follow(log, store, point.sweep, point.id, number)
    elif log.exists():
        with log.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    else:
        raise UsageError(f"{point.name} has written no log yet: {log}")
    return 0


def _follow(log: Path, store: Store, sweep: str, point: str, number: int) -> None:
    offset = 0
    while True:
        live = any(row.state.is_live for row in store.attempts(sweep) if (row.point, row.n) == (point, number))
        if log.exists():
            with log.open("rb") as file:
                file.seek(offset)
                shutil.copyfileobj(file, sys.stdout.buffer)
                offset = file.tell()
            sys.stdout.buffer.flush()
        if not live:
            return
        time.sleep(FOLLOW_EVERY_S)
