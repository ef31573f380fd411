"""Looking up a job whose id was never written down: by what its ticket says was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from orchestrator.backends.slurm import accounting, in_place, states
from orchestrator.backends.slurm.cluster import Config
from orchestrator.backends.slurm.commands import CommandRunner, ask
from orchestrator.backends.slurm.queue import QueueRow
from orchestrator.backends.slurm.ticket import Ticket, read_started
from orchestrator.errors import SubmitUncertain, Unobservable

MARGIN_S = 5.0
"""A request counts as lost this long after Slurm would have given it up."""


def find(
    run: CommandRunner,
    queued: Callable[[str], Sequence[QueueRow]],
    ticket: Ticket,
    attempt_dir: Path,
    changes: Sequence[str],
    config: Config,
    now: float,
) -> str | None:
    """The job's id, or None where Slurm positively has no such job.

    Args:
        queued: squeue's rows of a name, at most `MARGIN_S` old.
        changes: what the attempt asks of a job that it takes over.

    Raises:
        Unobservable: this cannot be told now.
    """
    if ticket.job is not None:
        return _taken_over(run, ticket, attempt_dir, changes)
    found = [row.id for row in queued(ticket.name) if states.is_of_queue(row, ticket) and _is_its_task(row.id, ticket)]
    if found:
        return min(found, key=_number)
    if started := read_started(attempt_dir):
        return started  # it ran, ended and was forgotten
    age = now - ticket.time
    settled_s = config.message_timeout_s + MARGIN_S
    if age < settled_s:
        raise Unobservable(f"no job {ticket.name} yet; a request may be under way for {settled_s:.0f} s")
    if age < config.min_job_age_s or not config.has_accounting:
        return None
    return _in_accounting(run, ticket)


def _in_accounting(run: CommandRunner, ticket: Ticket) -> str | None:
    since = datetime.fromtimestamp(ticket.time - 3600).strftime("%Y-%m-%dT%H:%M:%S")
    rows = accounting.parse(ask(run, accounting.command(name=ticket.name, since=since)))
    found = [row.id for row in rows if states.is_of_accounting(row, ticket) and _is_its_task(row.id, ticket)]
    return min(found, key=_number) if found else None


def _taken_over(run: CommandRunner, ticket: Ticket, attempt_dir: Path, changes: Sequence[str]) -> str | None:
    """Whether the last attempt's job was put back for this one. If so, the rest is done (again)."""
    job = in_place.known(run, str(ticket.job))
    if job is None:
        return read_started(attempt_dir)
    if job.restarts < ticket.restarts:
        return None
    try:
        return ticket.job if in_place.take_over(run, ticket, changes) else None
    except SubmitUncertain as error:
        raise Unobservable(str(error)) from error


def _is_its_task(id_: str, ticket: Ticket) -> bool:
    _, _, task = id_.partition("_")
    return task == ("" if ticket.index is None else str(ticket.index))


def _number(id_: str) -> int:
    return int(id_.partition("_")[0])
