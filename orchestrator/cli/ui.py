"""`ui [SWEEP]`: an MLflow server on loopback, and the link that compares the sweep's points."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from orchestrator.cli.arguments import add_root, add_sweep_name, open_existing, sweep_name
from orchestrator.errors import UsageError
from orchestrator.sinks.mlflow import SweepRuns, open_mlflow
from orchestrator.sinks.mlflow_server import (
    DEFAULT_PORT,
    HOST,
    base_url,
    command_line,
    compare_url,
    server_command,
    view_url,
)
from orchestrator.sinks.mlflow_store import Location


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sweep_name(parser)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"on loopback (default: {DEFAULT_PORT})")
    parser.add_argument(
        "--print", action="store_true", dest="only_print", help="print the command and link, start nothing"
    )
    add_root(parser)


def run(args: argparse.Namespace) -> int:
    if not 0 < args.port < 65_536:
        raise UsageError(f"--port {args.port}: a port is a number from 1 to 65535")
    paths, store = open_existing(args)
    name = sweep_name(args, store)
    location = Location.resolve(paths, os.environ)
    runs = open_mlflow(paths, os.environ).locate(name)
    served = location.uri.startswith(("http://", "https://"))
    base = location.uri if served else base_url(args.port)
    print(link(base, runs) if runs else base)
    if served:
        return 0
    command = server_command(sys.executable, location.uri, paths.mlflow_artifacts, args.port)
    if args.only_print:
        print(command_line(command))
        return 0
    _refuse_taken(args.port)
    print("Ctrl-C stops the server", flush=True)
    # in place of this process, so that whatever ends it ends the server
    os.execve(command.argv[0], command.argv, {**os.environ, **command.env})


def link(base: str, runs: SweepRuns) -> str:
    """To all points of a sweep in parallel coordinates."""
    if runs.view:
        return view_url(base, runs.experiment_id, runs.view)
    return compare_url(base, runs.experiment_id, runs.point_run_ids)


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(f"port {port} is taken ({error.strerror}); choose another with --port") from None
