"""`report SWEEP`: draw the report again from stored evidence; no job is asked anything."""

from __future__ import annotations

import argparse

from orchestrator.cli.arguments import add_root, add_sweep_name, open_existing, sweep_name
from orchestrator.cli.driving import near
from orchestrator.snapshot import sweep_snapshot, write_report
from reports.report import render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sweep_name(parser)
    parser.add_argument("--stdout", action="store_true", help="print it instead of writing report.md")
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    paths, store = open_existing(args)
    name = sweep_name(args, store)
    if args.stdout:
        print(render(sweep_snapshot(store, paths, name)), end="")
    else:
        print(near(write_report(store, paths, name)))
    return 0
