"""sacct's answer as rows. Pure.

What it says comes late: for seconds a job has no row, or a stub (name `allocation`, no partition) whose state may be
wrong. Both mean: unknown. Its JSON is wrong for exit codes (22.05), so the parsable text is read.
A job that Slurm started more than once has a row for each time, in order; where Slurm says REQUEUED of an earlier one, the
cause is only in its exit codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.backends.slurm.queue import OOM_SIGNAL, OUT_OF_MEMORY, timestamp

FIELDS = ("JobID", "JobName", "Partition", "State", "ExitCode", "DerivedExitCode", "Submit", "Comment")
STUB = "allocation"


def command(*, ids: Sequence[str] = (), name: str | None = None, since: str | None = None) -> list[str]:
    """The rows of jobs by id, or of this user's by name since a time (as sacct reads it)."""
    which = ["--jobs", ",".join(ids)] if ids else ["--name", str(name), "--starttime", str(since)]
    return ["sacct", "--duplicates", "--parsable2", "--noheader", *which, "--format", ",".join(FIELDS)]


@dataclass(frozen=True)
class AccountingRow:
    """One start of one job."""

    id: str
    name: str
    partition: str
    state: str
    exit_code: int | None
    """None where a signal ended it."""
    submitted_at: float | None
    comment: str

    @property
    def is_stub(self) -> bool:
        return self.name == STUB or not self.partition


@dataclass
class _Open:
    values: list[str]
    codes: list[str] = field(default_factory=list)


def parse(text: str) -> list[AccountingRow]:
    """Jobs in the order of their rows; what a step shows counts for the job whose row it follows."""
    jobs: list[_Open] = []
    for line in text.splitlines():
        values = line.split("|")
        if len(values) < len(FIELDS):
            continue
        id_, state, exit_code, derived = values[0], values[3], values[4], values[5]
        main = id_.partition(".")[0]
        if main == id_:
            jobs.append(_Open(values))
        owner = next((job for job in reversed(jobs) if job.values[0] == main), None)
        if owner is not None:
            owner.codes += [exit_code, derived, f":{OOM_SIGNAL}" if state.startswith("OUT_OF_ME") else ""]
    return [_row(job) for job in jobs]


def _row(job: _Open) -> AccountingRow:
    id_, name, partition, state, exit_code, _, submit, comment = job.values[: len(FIELDS)]
    code, _, signal = exit_code.partition(":")
    oom = any(text.endswith(f":{OOM_SIGNAL}") for text in job.codes)
    word = state.split(" ")[0].rstrip("+")  # CANCELLED by 1000
    return AccountingRow(
        id=id_,
        name=name,
        partition=partition,
        state=OUT_OF_MEMORY if oom and word in ("FAILED", "REQUEUED") else word,
        exit_code=int(code) if code.isdigit() and signal in ("", "0") else None,
        submitted_at=timestamp(submit),
        comment=comment,
    )
