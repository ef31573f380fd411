"""`cancel SWEEP`: waiting points are cancelled, running jobs are asked to end, and their ends are judged."""

from __future__ import annotations

import argparse

from orchestrator.cli.arguments import add_root, add_sweep_name, open_existing, sweep_name
from orchestrator.cli.driving import drive_to_end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sweep_name(parser)
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    paths, store = open_existing(args)
    name = sweep_name(args, store)
    store.cancel_sweep(name)
    # whoever drives the sweep passes the request on; when nobody does, this process does
    return drive_to_end(paths, store, name)
