"""Arguments that several verbs share, and what they stand for."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from orchestrator.clock import SystemClock
from orchestrator.errors import UsageError
from orchestrator.ledger import PointRow
from orchestrator.paths import DEFAULT_ROOT, ENV_ROOT, RootPaths
from orchestrator.store import Store, open_reader

ENV_DATABASE = "ORCHESTRATOR_DB"


def add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root",
        metavar="DIR",
        help=f"state folder (default: ${ENV_ROOT}, else {DEFAULT_ROOT}/ in the working directory)",
    )


def add_sweep_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", nargs="?", help="name of the sweep (default: the newest)")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def add_spec(parser: argparse.ArgumentParser) -> None:
    """The sweep file and what changes it, for `sweep` and `plan`."""
    parser.add_argument("spec", type=Path, help="the sweep file")
    parser.add_argument(
        "assignments",
        nargs="*",
        metavar="key=value",
        help="a field of the sweep file (budget.max_parallel=2) or a Hydra override for all points",
    )
    parser.add_argument("--backend", help="local, ... (default: what the sweep file says)")
    parser.add_argument("--profile", help="Hydra profile of the job (default: what the sweep file says)")


def open_store(paths: RootPaths) -> Store:
    return Store.open(paths.database, SystemClock(), os.environ.get(ENV_DATABASE))


def open_existing(args: argparse.Namespace) -> tuple[RootPaths, Store]:
    """The state folder for verbs that go on with what is there.

    Raises:
        UsageError: no sweep has run under this root.
    """
    paths = _existing(args)
    return paths, open_store(paths)


def open_for_reading(args: argparse.Namespace) -> tuple[RootPaths, Store]:
    """The same for verbs that only look, and that no writer may ever wait for.

    Raises:
        UsageError: no sweep has run under this root.
    """
    paths = _existing(args)
    return paths, open_reader(paths.database, SystemClock(), os.environ.get(ENV_DATABASE))


def _existing(args: argparse.Namespace) -> RootPaths:
    paths = RootPaths.resolve(args.root)
    if not paths.database.exists() and not os.environ.get(ENV_DATABASE):
        raise UsageError(f"nothing has run under {paths.root}; name another folder with --root or ${ENV_ROOT}")
    return paths


def sweep_name(args: argparse.Namespace, store: Store) -> str:
    """The sweep that was named, else the newest."""
    if args.sweep:
        return store.sweep(args.sweep).name
    names = store.sweep_names()
    if not names:
        raise UsageError("no sweep has run here yet")
    return names[0]


def find_point(store: Store, word: str, sweep: str | None) -> PointRow:
    """A point by id, the beginning of its id, or its name; in one sweep or in all, newest first."""
    rows = [row for name in ([sweep] if sweep else store.sweep_names()) for row in store.points(name)]
    exact = [row for row in rows if word in (row.id, row.name)]
    found = exact or [row for row in rows if row.id.startswith(word)]
    if not found:
        raise UsageError(f"no point {word!r}" + (f" in sweep {sweep}" if sweep else "") + "; see `status`")
    if len({row.id for row in found}) > 1:
        raise UsageError(f"{word!r} fits several points: {', '.join(f'{row.name} ({row.id})' for row in found[:5])}")
    return found[0]


def command_line(paths: RootPaths, *words: str) -> str:
    """A command of ours as one would type it here, quoted for a shell."""
    root = () if paths == RootPaths.resolve(None) else ("--root", str(paths.root))
    return shlex.join(["python", "-m", "orchestrator", *words, *root])


def near(path: Path) -> str:
    """The path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def print_json(data: Any) -> None:
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(data, indent=2, ensure_ascii=not utf8, allow_nan=False))
