"""What an attempt left behind, as plain data. `collect` fills it, `verdict` and `anomalies` read it; nothing here does I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.model import Verdict
from reports.snapshot import HardwareSnapshot, ModuleDims, SimilaritySnapshot

MIB = 1024**2
GIB = 1024**3

LATE_S = 120.0
"""A line may reach the console so much later than it was printed."""

PLAIN_EXCEPTION = "python_exception"
"""Code of the signature of a Python traceback that no pattern names."""


class Role(StrEnum):
    ROOT = "root"
    """Can be the cause of an end."""
    CASCADE = "cascade"
    """Follows from another failure (NCCL aborts, Ray actor deaths); never a cause while a root stands before it."""
    CONFIRMATION = "confirmation"
    """Says how the job ended, never why."""


@dataclass(frozen=True)
class Signature:
    """One pattern found in the console log."""

    code: str
    """Name in patterns.yaml, e.g. cuda_oom."""
    role: Role
    verdict: str | None
    """The verdict that a root of this kind leads to."""
    line: int
    """1-based line in the log."""
    text: str
    """The line without colour codes, shortened."""
    where: str | None = None
    """Innermost frame of a Python traceback: `trainer.py:120 in fit`."""
    steps_after: int = 0
    """Training steps that the same log shows after this line: what the job outlived did not end it."""
    file: str = "console.log"
    """The log it was found in, relative to the attempt folder."""
    rank: int | None = None
    """Which rank printed it, where the line says so."""
    time: str | None = None
    """`MM-DD hh:mm:ss.ffffff`, where the line says when it was printed."""

    @property
    def names_a_cause(self) -> bool:
        """A bare traceback or a kill of unknown origin say what ended a process, not why the job ended."""
        return self.code != PLAIN_EXCEPTION and self.verdict != Verdict.UNKNOWN


def in_time(signatures: Iterable[Signature]) -> tuple[Signature, ...]:
    """Earliest first.

    Lines of one log come in their order, which is the order in which they reached the console. One that carries a stamp
    goes by it: Ray prints a worker's line seconds after the driver's. A stamp that is further back is of another clock and
    does not count. Several logs are put in order by what stamps they have; a log without any stands before them.
    """
    latest: dict[str, float] = {}
    keyed = []
    for signature in signatures:
        before = latest.get(signature.file, 0.0)
        now = _seconds(signature.time) if signature.time else before
        now = before if before - now > LATE_S else now
        latest[signature.file] = max(now, before)
        keyed.append((now, signature))
    return tuple(signature for _, signature in sorted(keyed, key=lambda pair: pair[0]))


def _seconds(stamp: str) -> float:
    """Seconds of a year of 31-day months: good for comparing, and for nothing else."""
    month, day, hours, minutes, seconds = re.split("[- :]", stamp)
    return (((int(month) * 31 + int(day)) * 24 + int(hours)) * 60 + int(minutes)) * 60 + float(seconds)


@dataclass(frozen=True)
class NpzFacts:
    """One NPZ file of influence scores, statistics in float64 over valid positions."""

    file: str
    """Relative to the attempt folder."""
    step: int | None
    error: str | None = None
    """Why it could not be read; the statistics are then meaningless."""
    responses: int = 0
    valid: int = 0
    """Positions that should hold a score: mask True and the response's group has a contrast."""
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    nan_in_valid: int = 0
    histogram: tuple[tuple[float, float, int], ...] = ()
    """(from, to, how many), ascending, of the finite ones."""
    bytes: int | None = None
    """Size of the file."""
    dims: tuple[ModuleDims, ...] = ()
    """Sizes of the projected modules."""
    similarity: SimilaritySnapshot | None = None
    """What the similarity diagnostic found, where it ran."""


@dataclass(frozen=True)
class Evidence:
    """Everything the verdict may look at. Sizes in bytes, times in seconds since the epoch."""

    ended: bool
    """Nothing of this attempt runs any more, by outcome.json or by the backend's word."""
    expected_steps: int | None = None
    steps: tuple[int, ...] = ()
    """Distinct training steps seen in metrics.jsonl or, without it, in the log; ascending."""
    expected_npz: int | None = None
    npz: tuple[NpzFacts, ...] = ()
    exit_code: int | None = None
    signal: int | None = None
    outcome_seen: bool = False
    phase: str | None = None
    stop_reason: str | None = None
    stop_detail: str | None = None
    """What spoke for the stop: the signals of a hang, in words."""
    start_error: str | None = None
    cancel_requested: bool = False
    """We asked for the end."""
    scheduler_reason: str | None = None
    """The scheduler's own word: NODE_FAIL, PREEMPTED, OUT_OF_MEMORY, TIMEOUT, CANCELLED, ..."""
    gone: bool = False
    """The backend knows no such job any more and saw no end."""
    oom_kills: int | None = None
    signatures: tuple[Signature, ...] = ()
    log_lines: int = 0
    log_truncated: bool = False
    """The log's last line has no end, or it breaks off without any closing words of the job."""
    metrics: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """step -> name -> value."""
    card_bytes: int | None = None
    """Physical memory of one card."""
    gpu_peak_bytes: int | None = None
    """NVML's peak of used memory, the largest of all GPUs."""
    host_peak_bytes: int | None = None
    host_limit_bytes: int | None = None
    resumed_after: int = 0
    """Steps up to this one were done by earlier attempts, and their records restored from a checkpoint."""
    restarted: bool = False
    """The log shows steps beginning again after the last one had been reached."""
    started_at: float | None = None
    ended_at: float | None = None
    heartbeat_at: float | None = None
    """When the wrapper last said that it lives."""
    last_output_at: float | None = None
    """When the log last grew."""
    node: str | None = None
    """The host that ran it."""
    hardware: HardwareSnapshot | None = None
    step_lines: Mapping[int, str] = field(default_factory=dict)
    """step -> `file:line` of its metrics, where `metrics` has them from."""
