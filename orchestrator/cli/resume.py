"""`resume SWEEP`: go on with a sweep from what the store knows, without its sweep file."""

from __future__ import annotations

import argparse

from orchestrator.cli.arguments import add_root, add_sweep_name, open_existing, sweep_name
from orchestrator.cli.driving import drive_to_end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sweep_name(parser)
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    paths, store = open_existing(args)
    return drive_to_end(paths, store, sweep_name(args, store))
