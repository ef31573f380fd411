"""Running a point's next attempt under the id of its last one: no second job can come of it, and it takes no place in a queue
of submissions. Works while slurmctld knows the job (MinJobAge after its end), array tasks included.

`requeuehold` puts the job back and holds it, `update` moves it to the other pool, `release` lets it go. What a job cannot be
given anew (GPUs, CPUs, account, container, ...) must stay the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.backends.base import JobRef
from orchestrator.backends.slurm import entry, options
from orchestrator.backends.slurm.commands import CommandRunner, CommandTimeout, ask
from orchestrator.backends.slurm.states import ENDED, WAITING
from orchestrator.backends.slurm.ticket import Ticket, read_ticket
from orchestrator.errors import SubmitUncertain, Unobservable

AFTER_S = 20
"""A job that Slurm itself put back waits this long: started before its last start is cleared away, it fails, and the node
is drained. Left alone, Slurm would wait two minutes."""
_FIELD = re.compile(r"(?:^|\s)([A-Za-z][\w/:&.-]*)=(\S*)")


@dataclass(frozen=True)
class KnownJob:
    """From `scontrol show job`."""

    name: str
    comment: str
    state: str
    restarts: int
    requeue: bool

    @classmethod
    def parse(cls, text: str) -> KnownJob | None:
        fields: dict[str, str] = {}
        for key, value in _FIELD.findall(text):
            fields.setdefault(key, value)
        if "JobState" not in fields:
            return None
        restarts = fields.get("Restarts", "")
        return cls(
            name=fields.get("JobName", ""),
            comment=fields.get("Comment", ""),
            state=fields["JobState"],
            restarts=int(restarts) if restarts.isdigit() else 0,
            requeue=fields.get("Requeue") == "1",
        )


def prepare(
    run: CommandRunner, previous: JobRef, attempt_dir: Path, parameters: dict[str, Any], now: float
) -> Ticket | None:
    """The written ticket of an attempt that takes over the job of `previous`; None where that cannot be done."""
    try:
        before = read_ticket(previous.attempt_dir)
        if before is None or dict(before.fixed) != options.fixed(parameters):
            return None
        job = known(run, previous.handle)
    except Unobservable:
        return None
    if job is None or (job.name, job.comment) != (before.name, before.comment) or not job.requeue:
        return None
    over = job.restarts == before.restarts and job.state in ENDED - {"CANCELLED"}
    waits_again = job.restarts == before.restarts + 1 and job.state in WAITING
    if not (over or waits_again):
        return None
    ticket = Ticket(
        name=before.name,
        comment=before.comment,
        time=now,
        index=before.index,
        job=previous.handle,
        restarts=before.restarts + 1,
        fixed=dict(before.fixed),
    )
    ticket.write(attempt_dir)
    entry.hand_over(previous.attempt_dir, attempt_dir)
    return ticket


def take_over(run: CommandRunner, ticket: Ticket, changes: Sequence[str]) -> bool:
    """Put the job back, change it and let it go; may be repeated. False: Slurm would not, and nothing will run.

    Raises:
        SubmitUncertain: no answer; what has been done is seen from the job.
    """
    id_ = str(ticket.job)
    try:
        job = known(run, id_)
    except Unobservable as error:
        raise SubmitUncertain(str(error)) from error
    if job is None:
        return False
    if job.restarts > ticket.restarts or (job.restarts == ticket.restarts and job.state not in WAITING):
        return True  # it was let go before
    is_back = job.restarts == ticket.restarts
    back, start = ("hold", f"now+{AFTER_S}seconds") if is_back else ("requeuehold", "now")
    if not _told(run, ["scontrol", back, id_]):
        return False
    if _told(run, ["scontrol", "update", f"job={id_}", *changes, f"StartTime={start}"]) and _told(
        run, ["scontrol", "release", id_]
    ):
        return True
    _told(run, ["scancel", id_])
    return False


def known(run: CommandRunner, job: str) -> KnownJob | None:
    """What slurmctld has in memory of a job; None where it positively has nothing.

    Raises:
        Unobservable: no answer.
    """
    try:
        return KnownJob.parse(ask(run, ["scontrol", "--oneliner", "show", "job", job]))
    except Unobservable as error:
        if "Invalid job id" in str(error):
            return None
        raise


def _told(run: CommandRunner, command: list[str]) -> bool:
    try:
        reply = run(command)
    except CommandTimeout as error:
        raise SubmitUncertain(str(error)) from error
    if not reply.ok and ("Unable to contact" in reply.complaint or "timed out" in reply.complaint):
        raise SubmitUncertain(f"{command[0]}: {reply.complaint}")
    return reply.ok
