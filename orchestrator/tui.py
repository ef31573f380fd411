"""What a person sees while a sweep runs: a live panel on a terminal, plain lines everywhere else."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.model import PointState
from orchestrator.progress import Memory, Progress, Running
from orchestrator.waiting import Waiting

PLAIN_EVERY_S = 15.0
PIPE_WIDTH = 160
GIB = 1024**3
NEARLY_FULL = 0.92
"""Share of a card from which on its memory is shown in red."""
_LINES_AROUND = 8
"""Of the panel, beside those of what runs."""
_NAMES_SHOWN = 3

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
def display(console: Console, sweep: str, every_s: float = PLAIN_EVERY_S) -> Iterator[Display]:
    """Live on a terminal; elsewhere a line for every change, and one now and then so that a log shows life.

    The panel is drawn when there is news and at no other time: over a slow line each drawing counts.

    Args:
        every_s: seconds after which a line comes without a change.
    """
    if console.is_terminal and not console.is_dumb_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield _Panel(live, sweep)
    else:
        yield _Lines(console, sweep, every_s)


class _Panel:
    def __init__(self, live: Live, sweep: str) -> None:
        self._live, self._sweep = live, sweep
        self._drawn: object = None

    def show(self, progress: Progress, now: float) -> None:  # noqa: ARG002 - the lines on a pipe need it
        height = self._live.console.height
        drawn = (one_line(self._sweep, progress), [_cells(line) for line in progress.running], height)
        if drawn != self._drawn:
            self._drawn = drawn
            self._live.update(panel(self._sweep, progress, height - _LINES_AROUND), refresh=True)


class _Lines:
    def __init__(self, console: Console, sweep: str, every_s: float) -> None:
        self._console, self._sweep, self._every_s = console, sweep, every_s
        self._last: object = None
        self._at = float("-inf")

    def show(self, progress: Progress, now: float) -> None:
        key = news(progress)
        if key != self._last or now - self._at >= self._every_s:
            self._last, self._at = key, now
            line = one_line(self._sweep, progress)
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def news(progress: Progress) -> Hashable:
    """What is worth another line: anything but the time that passed."""
    states = tuple(sorted(progress.by_state.items()))
    running = tuple((line.name, line.n, line.state, line.step) for line in progress.running)
    return states, running, tuple((group.why, len(group.points)) for group in progress.waiting), progress.stopped


def panel(sweep: str, progress: Progress, most: int = 20) -> RenderableType:
    """The live view: a bar over the points, a line for each job that runs, and what waits.

    Args:
        most: lines for what runs, as the terminal's height allows.
    """
    head = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(1, progress.total), completed=progress.settled, width=20)
    head.add_row(Text(sweep, style="bold"), bar, counts(progress), Text(time_left(progress), style="dim"))
    parts: list[RenderableType] = [head]
    if spent := gpu_hours(progress):
        parts.append(Text(spent, style="dim"))
    if progress.running:
        parts.append(_running(progress.running, max(3, most)))
    parts += [Text(in_words(group), style="dim", no_wrap=True, overflow="ellipsis") for group in progress.waiting[:5]]
    parts += [Text(line, no_wrap=True, overflow="ellipsis") for line in progress.found]
    if progress.stopped is not None:
        parts.append(Text(f"stopped: {progress.stopped}", style="red"))
    return Group(*parts)


def _running(lines: Sequence[Running], most: int) -> Table:
    """Columns about which no line knows anything are left out."""
    rows = [_cells(line) for line in lines]
    shown = [name for name in rows[0] if any(row[name] for row in rows)]
    table = Table(box=None, padding=(0, 2), show_header=True, header_style="dim", pad_edge=False)
    for name in shown:
        text = name in ("running", "pool", "phase")
        table.add_column(name, justify="left" if text else "right", no_wrap=True, overflow="ellipsis")
    for line, row in zip(lines[:most], rows, strict=False):
        table.add_row(*(Text(row[name], style=_style(name, line)) for name in shown))
    if len(lines) > most:
        table.add_row(Text(f"and {len(lines) - most} more", style="dim"))
    return table


def _cells(line: Running) -> dict[str, str]:
    return {
        "running": line.name,
        "try": str(line.n),
        "pool": line.pool or "",
        "phase": line.state,
        "step": _step(line),
        "loss": _loss(line.loss),
        "GPU GiB": memory(line.gpu),
        "host GiB": memory(line.host),
        "elapsed": duration(line.elapsed_s),
    }


def _style(column: str, line: Running) -> str:
    full = line.gpu is not None and line.gpu.total and line.gpu.peak >= NEARLY_FULL * line.gpu.total
    return "red" if column == "GPU GiB" and full else ""


def counts(progress: Progress) -> Text:
    text = Text(f"{progress.settled}/{progress.total} points")
    for state, count in sorted(progress.by_state.items()):
        text.append(f"  {count} {state.value}", style=STYLES.get(state, ""))
    return text


def one_line(sweep: str, progress: Progress) -> str:
    """The same on one line of a log."""
    parts = [f"{sweep}: {counts(progress).plain}"]
    parts += [_in_line(line) for line in progress.running[:_NAMES_SHOWN]]
    if len(progress.running) > _NAMES_SHOWN:
        parts.append(f"and {len(progress.running) - _NAMES_SHOWN} more run")
    parts += [in_words(group) for group in progress.waiting]
    parts += [line.strip() for line in progress.found]
    parts += [f"stopped: {progress.stopped}"] if progress.stopped is not None else []
    return " | ".join([*parts, *filter(None, [gpu_hours(progress)]), time_left(progress)])


def _in_line(line: Running) -> str:
    known = {"loss": _loss(line.loss), "GPU GiB": memory(line.gpu)}
    more = "".join(f" {name} {value}" for name, value in known.items() if value)
    return f"{line.name} {line.state} step {_step(line)}{more} {duration(line.elapsed_s)}"


def in_words(group: Waiting) -> str:
    """`5 wait: 2 run, budget.max_parallel is 2 (infl-f512, infl-f128, infl-f64, ...)`"""
    names = ", ".join([*group.points[:_NAMES_SHOWN], *(["..."] if len(group.points) > _NAMES_SHOWN else [])])
    return f"{len(group.points)} wait{'s' * (len(group.points) == 1)}: {group.why} ({names})"


def gpu_hours(progress: Progress) -> str:
    """`GPU-hours: 3.2 used, at most 8.0 more by what runs, budget 200`; empty on machines without GPUs."""
    spent, limit = progress.gpu_hours, progress.gpu_hours_limit
    if spent is None:
        return ""
    ahead = f", at most {spent.ahead:.1f} more by what runs" if spent.ahead else ""
    return f"GPU-hours: {spent.used:.1f} used{ahead}" + (f", budget {limit:g}" if limit is not None else "")


def time_left(progress: Progress) -> str:
    if progress.settled == progress.total:
        return "done"
    if progress.left is None:
        return "time left: known after the first step"
    value, low, high = (duration(part) for part in (progress.left.value, progress.left.low, progress.left.high))
    return f"about {value} left ({low}-{high})"


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def memory(found: Memory | None) -> str:
    """`61.2 (peak 66.0) of 79.6`, in GiB."""
    if found is None:
        return ""
    used, peak = found.used / GIB, found.peak / GIB
    return f"{used:.1f} (peak {peak:.1f})" + (f" of {found.total / GIB:.1f}" if found.total else "")


def _loss(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _step(line: Running) -> str:
    return f"{line.step}/{line.expected_steps}" if line.expected_steps else str(line.step)
