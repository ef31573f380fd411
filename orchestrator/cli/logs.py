"""`logs POINT`: the console log of a point's newest attempt, or of a given one."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.cli.arguments import add_root, find_point, open_existing
from orchestrator.cli.asking import SILENT, job_of, talkative
from orchestrator.errors import BackendError, UsageError
from orchestrator.ledger import AttemptRow
from orchestrator.paths import RootPaths
from orchestrator.store import Store

FOLLOW_EVERY_S = 0.5
ASK_EVERY_S = 3.0
"""Of a cluster, rather than of a file."""
CHUNK_BYTES = 4 * 1024**2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("point", help="id, beginning of an id, or name of a point")
    parser.add_argument("--sweep", help="where to look (default: all sweeps, newest first)")
    parser.add_argument("--attempt", type=int, metavar="N", help="which try (default: the newest)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the log grows, until the attempt ends")
    parser.add_argument(
        "--live", action="store_true", help="what the job's container prints, from the cluster itself (Run:ai)"
    )
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
    attempt = next(row for row in store.attempts(point.sweep) if (row.point, row.n) == (point.id, number))
    if args.path:
        print(log)
    elif args.live:
        _follow(_container(paths, store, attempt), store, attempt, ASK_EVERY_S if args.follow else None)
    elif args.follow:
        _follow(_file(log), store, attempt, FOLLOW_EVERY_S)
    elif log.exists():
        with log.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    else:
        raise UsageError(f"{point.name} has written no log yet: {log}" + _hint(store, attempt))
    return 0


Source = Callable[[int], bytes]
"""What a log holds from an offset on."""


def _file(log: Path) -> Source:
    def read(offset: int) -> bytes:
        if not log.exists():
            return b""
        with log.open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK_BYTES)

    return read


def _container(paths: RootPaths, store: Store, attempt: AttemptRow) -> Source:
    backend, job = talkative(store, attempt.sweep), job_of(paths, attempt)
    if backend is None:
        name = store.sweep(attempt.sweep).backend
        raise UsageError(f"the backend {name} has no log but the one in the attempt folder; leave out --live")
    if job is None:
        raise UsageError(f"{attempt.job_name} is not submitted yet")

    def read(offset: int) -> bytes:
        try:
            return backend.live_log(job)[offset:]
        except BackendError:
            if offset:  # it was there, and went with the workload
                return b""
            raise

    return read


def _hint(store: Store, attempt: AttemptRow) -> str:
    asked = attempt.state.is_live and store.sweep(attempt.sweep).backend not in SILENT
    return "; --live asks the cluster for what its container prints" if asked else ""


def _follow(read: Source, store: Store, attempt: AttemptRow, every_s: float | None) -> None:
    """Print what is there and, every so many seconds, what has come; to the end of the attempt, or once."""
    offset = 0
    while True:
        now = [row for row in store.attempts(attempt.sweep) if (row.point, row.n) == (attempt.point, attempt.n)]
        while new := read(offset):
            sys.stdout.buffer.write(new)
            offset += len(new)
        sys.stdout.buffer.flush()
        if every_s is None or not any(row.state.is_live for row in now):
            return
        time.sleep(every_s)
