"""The ticket: what was asked of Slurm for an attempt, in its folder, written before Slurm is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.backends import tickets

TICKET = "slurm.json"
STARTED = "slurm.started"
"""Holds the id of the job that began to run the attempt; written on the node."""
NEXT = "slurm.next"
"""Holds the folder of the attempt that the job runs instead, when it is started again."""


@dataclass(frozen=True)
class Ticket:
    name: str
    """Of the job; of an array, the same for all its tasks."""
    comment: str
    """The attempt's token; of an array, a digest of its attempts' tokens."""
    time: float
    """Seconds since the epoch, before Slurm was asked."""
    index: int | None = None
    """Place in the job array; None: a job of its own."""
    job: str | None = None
    """The id that the attempt takes over; None: a new one."""
    restarts: int = 0
    """How often Slurm has started the job anew when it runs this attempt."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """What was asked for and cannot be changed afterwards."""

    def write(self, attempt_dir: Path) -> None:
        tickets.write(attempt_dir / TICKET, self)


def read_ticket(attempt_dir: Path) -> Ticket | None:
    """None where nothing was ever asked of Slurm.

    Raises:
        Unobservable: the file is there and cannot be read.
    """
    return tickets.read(attempt_dir / TICKET, Ticket)


def read_started(attempt_dir: Path) -> str | None:
    """The id of the job that began to run this attempt."""
    try:
        return (attempt_dir / STARTED).read_text().strip() or None
    except OSError:
        return None
