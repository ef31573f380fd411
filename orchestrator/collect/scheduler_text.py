"""What schedulers print about a job, as people save it beside a run: `runai describe job` and `sacct`. Pure text parsing.

The words of both are brought to Slurm's, which `triage` knows: COMPLETED, FAILED, TIMEOUT, OUT_OF_MEMORY, PREEMPTED, ...
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

OUT_OF_MEMORY = "OUT_OF_MEMORY"

_RUNAI = {
    "succeeded": "COMPLETED",
    "completed": "COMPLETED",
    "error": "FAILED",
    "fail": "FAILED",
    "failed": "FAILED",
    "crashloopbackoff": "FAILED",
    "oomkilled": OUT_OF_MEMORY,
    "preempted": "PREEMPTED",
    "timedout": "TIMEOUT",
    "stopped": "CANCELLED",
    "deleted": "CANCELLED",
    "evicted": "NODE_FAIL",
    "running": "RUNNING",
    "terminating": "RUNNING",
    "pending": "PENDING",
    "creating": "PENDING",
    "containercreating": "PENDING",
    "initializing": "PENDING",
}
"""Run:ai's status of a job (both generations of its command line), in lower case."""

_LIVE = frozenset({"RUNNING", "PENDING", "COMPLETING", "SUSPENDED", "CONFIGURING", "REQUEUED"})
_STATUS = re.compile(r"^\s*(?:Status|Phase):\s*(\w+)", re.IGNORECASE | re.MULTILINE)
_TERMINATED = re.compile(r"\bReason:\s*(OOMKilled|Evicted)\b")
_POOL = re.compile(r"^\s*(?:Current )?Node ?Pools?:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
_EXIT_CODE = re.compile(r"\bExit Code:\s*(\d+)", re.IGNORECASE)
_SACCT_EXIT = re.compile(r"^(\d+):(\d+)$")
_KILLED_FOR_MEMORY = "125"
"""Slurm's signal number for a kill by the cgroup's memory limit."""


@dataclass(frozen=True)
class SchedulerFacts:
    live: bool = False
    """The job was still queued or running when the text was saved."""
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    pool: str | None = None
    """Node pool or partition that it ran in, as the scheduler names it."""


def parse_runai_describe(text: str) -> SchedulerFacts:
    """Saved output of `runai describe job NAME` or `runai workload describe NAME`; unknown words are kept in capitals."""
    found = _STATUS.search(text)
    status = _RUNAI.get(found[1].lower(), found[1].upper()) if found else None
    if (terminated := _TERMINATED.search(text)) and status != "COMPLETED":
        status = _RUNAI[terminated[1].lower()]
    code = _EXIT_CODE.search(text)
    exit_code = int(code[1]) if code else (0 if status == "COMPLETED" else None)
    pool = _POOL.search(text)
    return SchedulerFacts(live=status in _LIVE, reason=status, exit_code=exit_code, pool=pool[1] if pool else None)


def parse_sacct(text: str) -> SchedulerFacts:
    """Saved output of `sacct`, in columns or `--parsable2`, for one job.

    The newest instance of the job counts. An out-of-memory kill shows in a step while the job itself says FAILED.
    """
    rows = _table(text)
    jobs = [row for row in rows if row.get("State") and "." not in row.get("JobID", "")] or rows
    if not jobs:
        return SchedulerFacts()
    job = jobs[-1]
    state = (job.get("State") or "").split(" ")[0].rstrip("+") or None
    if state not in ("COMPLETED", "PREEMPTED") and any(_ran_out_of_memory(row) for row in rows):
        state = OUT_OF_MEMORY
    exit_code = _SACCT_EXIT.match(job.get("ExitCode") or "")
    code, signal = (int(exit_code[1]), int(exit_code[2])) if exit_code else (None, 0)
    is_signal = 0 < signal < int(_KILLED_FOR_MEMORY)
    return SchedulerFacts(
        live=state in _LIVE,
        reason=state,
        exit_code=code,
        signal=signal if is_signal else None,
        pool=job.get("Partition") or None,
    )


def _ran_out_of_memory(row: dict[str, str]) -> bool:
    codes = (row.get("ExitCode") or "", row.get("DerivedExitCode") or "")
    return (row.get("State") or "").startswith("OUT_OF_ME") or any(
        code.endswith(f":{_KILLED_FOR_MEMORY}") for code in codes
    )


def _table(text: str) -> list[dict[str, str]]:
    """Rows below the header line that names JobID and State."""
    lines = [line for line in text.splitlines() if line.strip()]
    start = next((i for i, line in enumerate(lines) if "JobID" in line and "State" in line), None)
    if start is None:
        return []
    header, body = lines[start], lines[start + 1 :]
    if "|" in header:
        names = header.split("|")
        return [dict(zip(names, line.split("|"), strict=False)) for line in body if "|" in line]
    return _columns(header, body)


def _columns(header: str, body: Sequence[str]) -> list[dict[str, str]]:
    """`sacct` without --parsable: a ruler of dashes below the header says how wide the columns are."""
    if not body or set(body[0].strip()) != {"-", " "}:
        return []
    spans = [match.span() for match in re.finditer(r"-+", body[0])]
    names = [header[start:end].strip() for start, end in spans]
    return [
        {name: line[start:end].strip() for name, (start, end) in zip(names, spans, strict=True)} for line in body[1:]
    ]
