"""From what Slurm says about a job to the state of one attempt. Pure.

An attempt is one start of a job: where Slurm has put the job back into the queue since (preemption, a dead node, scontrol
requeue), the attempt is over, whatever the job does now.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.backends.base import JobState, JobStatus
from orchestrator.backends.slurm.accounting import AccountingRow
from orchestrator.backends.slurm.queue import QueueRow
from orchestrator.backends.slurm.ticket import Ticket

WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
RUNNING = frozenset(
    {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
)
"""COMPLETING too: the word hides how the job ended, and its processes may still be there."""
ENDED = frozenset(
    {
        "COMPLETED",
        "FAILED",
        "TIMEOUT",
        "CANCELLED",
        "NODE_FAIL",
        "PREEMPTED",
        "OUT_OF_MEMORY",
        "BOOT_FAIL",
        "DEADLINE",
        "REVOKED",
    }
)
STUCK = (
    "BadConstraints",
    "PartitionTimeLimit",
    "PartitionNodeLimit",
    "PartitionInactive",
    "PartitionDown",
    "InvalidAccount",
    "InvalidQOS",
    "AccountNotAllowed",
    "QOSNotAllowed",
    "JobHeldUser",
    "JobHeldAdmin",
    "DependencyNeverSatisfied",
    "launch failed requeued held",
    "job requeued in held state",
)
"""Reasons for waiting that time alone does not end."""
_CLOCKS_DIFFER_S = 3600.0
"""How far the clocks of two machines may be apart for a job to count as submitted after its ticket was written."""


def is_of_queue(row: QueueRow, ticket: Ticket) -> bool:
    """Whether the row is of the ticket's job, and not of another one that got the same id later or had it before."""
    return row.name == ticket.name and row.comment == ticket.comment and _later(row.submitted_at, ticket)


def is_of_accounting(row: AccountingRow, ticket: Ticket) -> bool:
    """The same; sacct knows a comment only where the cluster is configured to keep it."""
    return row.name == ticket.name and row.comment in ("", ticket.comment) and _later(row.submitted_at, ticket)


def _later(submitted_at: float | None, ticket: Ticket) -> bool:
    return ticket.job is not None or submitted_at is None or submitted_at >= ticket.time - _CLOCKS_DIFFER_S


def of_queue(row: QueueRow) -> JobStatus | None:
    """The state of the attempt that the job's present start is; None for a word that we do not know."""
    if row.state in WAITING:
        reason = None if row.reason in ("", "None") else row.reason
        return JobStatus(JobState.QUEUED, reason=reason, is_stuck=row.reason.startswith(STUCK))
    if row.state in RUNNING:
        return JobStatus(JobState.RUNNING)
    if row.state in ENDED:
        return ended(row.state, row.exit_code)
    return None


def of_accounting(rows: Sequence[AccountingRow], ticket: Ticket) -> JobStatus | None:
    """How the start that the ticket names ended; None where accounting does not know yet.

    Args:
        rows: of the ticket's job, in the order of its starts.
    """
    if any(row.is_stub for row in rows) or len(rows) <= ticket.restarts:
        return None
    row = rows[ticket.restarts]
    if row.state in ENDED:
        return ended(row.state, row.exit_code)
    if (
        row.state == "REQUEUED"
    ):  # by hand, or by the system of the centre: like a preemption, it says nothing of the job
        return JobStatus(JobState.ENDED, reason="PREEMPTED")
    return None


def put_back(wrote_outcome: bool) -> JobStatus:
    """Of an attempt whose job went back into the queue where accounting does not tell why.

    A preempted job is told to end and writes its outcome; one whose node died does not.
    """
    return JobStatus(JobState.ENDED, reason="PREEMPTED" if wrote_outcome else "NODE_FAIL")


def ended(word: str, exit_code: int | None) -> JobStatus:
    known = exit_code if word in ("COMPLETED", "FAILED") else None
    return JobStatus(JobState.ENDED, exit_code=known, reason="NODE_FAIL" if word == "BOOT_FAIL" else word)
