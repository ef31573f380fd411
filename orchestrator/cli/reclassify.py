"""`reclassify [SWEEP]`: judge stored attempts again after a pattern changed, and say what changed.

The patterns are the built-in ones and those of the sweep file as it is now. Nothing is rewritten: the first judgement
stays among the events. No job is asked or started; `rerun` tries a point again that deserves it by its new verdict.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from orchestrator.cli.arguments import (
    add_json,
    add_root,
    add_sweep_name,
    command_line,
    near,
    open_existing,
    print_json,
    sweep_name,
)
from orchestrator.paths import RootPaths
from orchestrator.reclassify import Change, Reclassified, reclassify
from orchestrator.reporting import write_report
from orchestrator.spec import load
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.triage.own_patterns import check_examples


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sweep_name(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would change and write nothing")
    add_json(parser)
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    paths, store = open_existing(args)
    name = sweep_name(args, store)
    spec, source = patterns_of(store, name)
    found = reclassify(store, paths, name, spec, write=not args.dry_run)
    if args.json:
        print_json(as_json(name, found))
    else:
        _print(name, found, source, args.dry_run)
    if found.changes and not args.dry_run:
        report = write_report(store, paths, name, lambda text: print(text, file=sys.stderr))
        if not args.json:
            _print_what_follows(report, paths, name)
    return 0


def patterns_of(store: Store, name: str) -> tuple[SweepSpec, str]:
    """The sweep with the patterns that its file has now, and where they come from; as stored where the file is gone.

    Raises:
        SpecError: a mistake in the file.
    """
    row = store.sweep(name)
    stored, path = SweepSpec.model_validate(row.spec), Path(row.spec_path)
    if not path.is_file():
        return stored, f"as the sweep was started; {path} is not there"
    spec = load(path)
    if spec.name != name:
        return stored, f"as the sweep was started; {path} now describes {spec.name}"
    check_examples(spec)
    return spec, str(path)


def _print(name: str, found: Reclassified, source: str, dry_run: bool) -> None:
    number = len(found.changes)
    would = "would change" if dry_run else "changed"
    print(f"{name}: {found.judged} attempts judged again, {number} {would} (patterns: {source})")
    for change in found.changes:
        old, new = change.attempt.verdict, change.after.judgement.verdict
        what = f"{old.value if old else None} -> {new.value}" if change.verdict_changed else f"still {new.value}"
        print(f"  {change.point.name} attempt {change.attempt.n}: {what}: {change.after.judgement.reason}")
        print(f"    before: {change.attempt.reason}")
        for line in _consequences(change):
            print(f"    {line}")


def _consequences(change: Change) -> list[str]:
    new, gone = change.flags
    lines = [f"new flags: {', '.join(new)}"] if new else []
    lines += [f"flags gone: {', '.join(gone)}"] if gone else []
    return lines + ([f"the point is now {change.settled.value}"] if change.settled else [])


def _print_what_follows(report: Path, paths: RootPaths, name: str) -> None:
    print(f"report   {near(report)}")
    print(f"MLflow   {command_line(paths, 'resume', name)} brings it up to date")


def as_json(name: str, found: Reclassified) -> dict[str, Any]:
    """The documented form of `reclassify --json`."""
    return {
        "sweep": name,
        "judged": found.judged,
        "changed": [
            {
                "point": change.point.id,
                "name": change.point.name,
                "attempt": change.attempt.n,
                "before": change.attempt.verdict.value if change.attempt.verdict else None,
                "after": change.after.judgement.verdict.value,
                "reason": change.after.judgement.reason,
                "new_anomalies": list(change.flags[0]),
                "gone_anomalies": list(change.flags[1]),
                "state": change.settled.value if change.settled else change.point.state.value,
            }
            for change in found.changes
        ],
    }
