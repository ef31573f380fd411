"""What `sweep`, `resume` and `cancel` share: drive a registered sweep with progress on the screen, then say how it ended."""

from __future__ import annotations

import os

from rich.console import Console

from orchestrator.cli.arguments import command_line, near
from orchestrator.clock import SystemClock
from orchestrator.errors import EXIT_INTERRUPTED
from orchestrator.ledger import View
from orchestrator.notify import open_notifier
from orchestrator.paths import RootPaths
from orchestrator.search.said import search_lines
from orchestrator.session import Session, exit_code
from orchestrator.sinks.mlflow import open_mlflow
from orchestrator.snapshot import sweep_state
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.tables import points_table
from orchestrator.tui import display, open_console
from orchestrator.watching import Watcher, limits_of


def drive_to_end(paths: RootPaths, store: Store, name: str) -> int:
    """Returns the exit code. Ctrl-C leaves the jobs running and says how to go on."""
    console = open_console()
    clock = SystemClock()
    spec = SweepSpec.model_validate(store.sweep(name).spec)
    notifier = open_notifier(spec.notify, os.environ)
    session = Session(name, paths, store, open_mlflow(paths, os.environ), clock, notifier)
    watcher = Watcher(name, paths, store)
    try:
        with display(console, name) as screen:

            def observe(view: View) -> None:
                now = clock.now()
                screen.show(watcher.look(view, spec, now), now)

            view = session.run(observe, lambda text: console.print(text, style="yellow", soft_wrap=True))
    except KeyboardInterrupt:
        console.print("\ninterrupted; jobs that run go on.")
        console.print(f"watch them again   {command_line(paths, 'resume', name)}", soft_wrap=True, highlight=False)
        console.print(f"end them           {command_line(paths, 'cancel', name)}", soft_wrap=True, highlight=False)
        return EXIT_INTERRUPTED
    conclude(console, paths, store, name, view)
    return exit_code(view)


def conclude(console: Console, paths: RootPaths, store: Store, name: str, view: View) -> None:
    """The table, the report's path, and the command that opens MLflow."""
    console.print(points_table(f"{name}: {sweep_state(store.sweep(name), view)}", view))
    if view.stopped is not None:
        console.print(f"stopped  {view.stopped}", style="red", soft_wrap=True, highlight=False)
    spec, names = SweepSpec.model_validate(store.sweep(name).spec), {point.id: point.name for point in view.points}
    for line in search_lines(
        spec, store.trials(name) if spec.search else [], names, limits_of(spec, view).gpus_per_attempt
    ):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"report   {near(paths.report(name))}", soft_wrap=True, highlight=False)
    console.print(f"MLflow   {command_line(paths, 'ui', name)}", soft_wrap=True, highlight=False)
