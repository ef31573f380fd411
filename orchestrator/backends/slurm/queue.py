"""squeue's answer as rows. Pure.

squeue knows what waits and runs, and what ended within MinJobAge (five minutes unless configured otherwise). It is what
slurmctld has in memory: right at once, and there without accounting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

OUT_OF_MEMORY = "OUT_OF_MEMORY"
OOM_SIGNAL = 125
"""Slurm's number for a kill by the memory limit of the cgroup."""
FIELDS = (
    ("JobArrayID", 40),
    ("State", 24),
    ("RestartCnt", 8),
    ("SubmitTime", 24),
    ("exit_code", 8),
    ("DerivedEC", 8),
    ("Name", 64),
    ("Comment", 64),
    ("Reason", 48),
)
"""Field of `squeue -O` and its width; the short ones are cut off where they are longer."""


def command(*, name: str | None = None) -> list[str]:
    """All jobs of this user, tasks of arrays one by one; with `name`, those of that name."""
    layout = ",".join(f"{field}:{width}|" for field, width in FIELDS)
    named = ["--name", name] if name else []
    return ["squeue", "--me", "--noheader", "--array", "--states", "all", *named, "--Format", layout]


@dataclass(frozen=True)
class QueueRow:
    id: str
    """17, or 17_3 for a task of an array."""
    state: str
    """RUNNING, PENDING, OUT_OF_MEMORY, ..."""
    restarts: int
    submitted_at: float | None
    """Seconds since the epoch: when it was submitted, or put back into the queue."""
    exit_code: int | None
    """None where a signal ended it."""
    name: str
    comment: str
    reason: str
    """Why it waits, or how it ended: Resources, BeginTime, NonZeroExitCode, ..."""


def parse(text: str) -> list[QueueRow]:
    """Lines that are no rows are passed over: squeue writes warnings between them."""
    split = (line.split("|") for line in text.splitlines())
    return [row for parts in split if len(parts) >= len(FIELDS) and (row := _row([part.strip() for part in parts]))]


def _row(parts: Sequence[str]) -> QueueRow | None:
    id_, state, restarts, submitted, exit_code, derived, name, comment, reason = parts[: len(FIELDS)]
    if not id_[:1].isdigit():
        return None
    status, worst = _wait_status(exit_code), _wait_status(derived)
    if state == "FAILED" and OOM_SIGNAL in (status & 0x7F, worst & 0x7F):
        state = OUT_OF_MEMORY  # a step was killed for memory while the job as a whole only failed
    return QueueRow(
        id=id_,
        state=state,
        restarts=_number(restarts),
        submitted_at=timestamp(submitted),
        exit_code=None if status & 0x7F else status >> 8,
        name=name,
        comment="" if comment == "(null)" else comment,
        reason=reason,
    )


def timestamp(text: str) -> float | None:
    """Slurm's local time without a zone -> seconds since the epoch; None for Unknown and the like."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _wait_status(text: str) -> int:
    """As wait(2) counts: 768 for exit code 3, 11 for SIGSEGV; some versions write 3:0 and 0:11."""
    code, colon, signal = text.partition(":")
    return _number(code) << 8 | _number(signal) if colon else _number(code)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
