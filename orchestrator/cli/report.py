"""`report SWEEP`: draw the report again from stored evidence; no job is asked anything. `--compare A B`: two sweeps at once."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from orchestrator.cli.arguments import add_root, add_sweep_name, near, open_existing, sweep_name
from orchestrator.errors import UsageError
from orchestrator.git_changes import read_changes
from orchestrator.paths import RootPaths
from orchestrator.reporting import (
    draw_comparison,
    draw_report,
    own_templates,
    write_comparison,
    write_snapshot,
)
from orchestrator.snapshot import sweep_snapshot
from orchestrator.store import Store
from reports.compare.report import compare
from reports.snapshot import SweepSnapshot
from trainer_ext.records import write_atomic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sweep_name(parser)
    parser.add_argument("--stdout", action="store_true", help="print it instead of writing report.md")
    parser.add_argument("--html", action="store_true", help="write report.html as well: one page with its plots in it")
    parser.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="set two sweeps side by side instead, point by point"
    )
    parser.add_argument(
        "--snapshot",
        metavar="FILE",
        type=Path,
        help="write what the report is drawn from as JSON, and no report",
    )
    parser.add_argument(
        "--base", metavar="COMMIT", help="show the files changed since then, not since the sweep before"
    )
    parser.add_argument(
        "--templates",
        metavar="DIR",
        type=Path,
        help="your own <section>.md.j2 (besides templates/ in the state folder)",
    )
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    paths, store = open_existing(args)
    templates = [*([args.templates] if args.templates else []), *own_templates(paths)]
    if args.compare:
        return _compare(args, store, paths, templates)
    name = sweep_name(args, store)
    snapshot = _snapshot(store, paths, name, args.base)
    if args.snapshot:
        write_atomic(args.snapshot, snapshot.to_json())
        print(near(args.snapshot))
    elif args.stdout:
        print(draw_report(snapshot, templates), end="")
    else:
        path = write_snapshot(snapshot, paths.report(name), templates, html=args.html)
        print(near(path.with_suffix(".html") if args.html else path))
    return 0


def _compare(args: argparse.Namespace, store: Store, paths: RootPaths, templates: Sequence[Path]) -> int:
    if args.sweep or args.base:
        raise UsageError("--compare A B names both sweeps: neither another one nor --base goes with it")
    a, b = (sweep_snapshot(store, paths, store.sweep(name).name) for name in args.compare)
    changes = read_changes(_repository(b), a.git.commit, b.git.commit) if a.git and b.git else None
    compared = compare(a, b, changes)
    if args.stdout:
        print(draw_comparison(compared, templates), end="")
    else:
        path = write_comparison(compared, paths.comparison(a.name, b.name), templates, html=args.html)
        print(near(path.with_suffix(".html") if args.html else path))
    return 0


def _repository(snapshot: SweepSnapshot) -> Path:
    """A folder in the repository that the sweep was started from: its sweep file's, or where we are."""
    folder = Path(snapshot.spec_path or ".").resolve().parent
    return folder if folder.is_dir() else Path.cwd()


def _snapshot(store: Store, paths: RootPaths, name: str, base: str | None) -> SweepSnapshot:
    """The sweep, with what changed since `base` where that is named.

    Raises:
        UsageError: the sweep ran outside a repository, or git knows no such commit.
    """
    snapshot = sweep_snapshot(store, paths, name)
    if base is None:
        return snapshot
    if snapshot.git is None:
        raise UsageError(f"{name} was started outside a git repository: there is nothing to compare with {base}")
    folder = _repository(snapshot)
    changes = read_changes(folder, base, snapshot.git.commit)
    if changes is None:
        raise UsageError(
            f"git in {folder} does not know both {base} and {snapshot.git.commit[:10]}, the commit that {name} ran"
        )
    return dataclasses.replace(snapshot, changes=changes)
