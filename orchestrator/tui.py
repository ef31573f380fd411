"""What a person sees while a sweep runs: a live panel on a terminal, plain lines everywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.model import PointState
from orchestrator.progress import Progress, Running

PLAIN_EVERY_S = 15.0
PIPE_WIDTH = 160

STYLES = {
    PointState.SUCCEEDED: "green",
    PointState.FAILED: "red",
    PointState.BLOCKED: "red",
    PointState.ACTIVE: "cyan",
    PointState.CANCELLED: "yellow",
}


class Display(Protocol):
    def show(self, progress: Progress, now: float) -> None: ...


def open_console() -> Console:
    """Standard output; a pipe has no width, and a table in a log should not be folded for want of one.

    No markup: paths and error texts hold brackets (`[rank1]: ...`), which rich would swallow or trip over.
    """
    console = Console(markup=False, emoji=False)
    return console if console.is_terminal else Console(width=PIPE_WIDTH, markup=False, emoji=False)


@contextmanager
def display(console: Console, sweep: str) -> Iterator[Display]:
    """Live on a terminal; on a pipe a line for every change, and one now and then so that a log shows life."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield _Panel(live, sweep)
    else:
        yield _Lines(console, sweep)


class _Panel:
    def __init__(self, live: Live, sweep: str) -> None:
        self._live, self._sweep = live, sweep

    def show(self, progress: Progress, now: float) -> None:  # noqa: ARG002 - the panel redraws itself
        self._live.update(panel(self._sweep, progress))


class _Lines:
    def __init__(self, console: Console, sweep: str) -> None:
        self._console, self._sweep = console, sweep
        self._last: object = None
        self._at = float("-inf")

    def show(self, progress: Progress, now: float) -> None:
        key = (progress.settled, [(line.name, line.n, line.step) for line in progress.running])
        if key != self._last or now - self._at >= PLAIN_EVERY_S:
            self._last, self._at = key, now
            self._console.print(one_line(self._sweep, progress), highlight=False, markup=False, soft_wrap=True)


def panel(sweep: str, progress: Progress) -> RenderableType:
    """The live view: a bar over the points and a line for each job that runs."""
    head = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(1, progress.total), completed=progress.settled, width=30)
    head.add_row(Text(sweep, style="bold"), bar, counts(progress), Text(time_left(progress), style="dim"))
    if not progress.running:
        return head
    table = Table(box=None, padding=(0, 2), show_header=True, header_style="dim")
    for column in ("running", "try", "pool", "phase", "step", "elapsed"):
        table.add_column(column, justify="right" if column in ("try", "step", "elapsed") else "left")
    for line in progress.running:
        table.add_row(line.name, str(line.n), line.pool or "", line.state, _step(line), duration(line.elapsed_s))
    return Group(head, table)


def counts(progress: Progress) -> Text:
    text = Text(f"{progress.settled}/{progress.total} points")
    for state, count in sorted(progress.by_state.items()):
        text.append(f"  {count} {state.value}", style=STYLES.get(state, ""))
    return text


def one_line(sweep: str, progress: Progress) -> str:
    """The same on one line of a log."""
    parts = [f"{sweep}: {counts(progress).plain}"]
    parts += [f"{line.name} {line.state} step {_step(line)} {duration(line.elapsed_s)}" for line in progress.running]
    return " | ".join([*parts, time_left(progress)])


def time_left(progress: Progress) -> str:
    if progress.settled == progress.total:
        return "done"
    if progress.seconds_left is None:
        return "time left: known after the first step"
    return f"about {duration(progress.seconds_left)} left"


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _step(line: Running) -> str:
    return f"{line.step}/{line.expected_steps}" if line.expected_steps else str(line.step)
