"""Names and schema of the files in an attempt folder: the only thing the two planes share.

Standard library only, because three worlds import it: the orchestrator, the job wrapper on a bare node, and the trainer.
Every JSON file here is one object; every reader ignores keys that it does not know, so that either side may be newer.

==================  ==========================  ===============================================================
file                written by                  what
==================  ==========================  ===============================================================
attempt.json        orchestrator, before submit `AttemptSpec`
config.yaml         orchestrator, before submit the resolved config that replays the job
claim               wrapper, O_EXCL             `Claim`: fences duplicates
node.json           wrapper, atomic             `Node`: what it runs on
console.log         wrapper                     stdout and stderr of the job as they come
metrics.jsonl       trainer                     `{"step": n, "data": {...}}` a line (verl's `file` logger)
memory.jsonl        wrapper                     `MemorySample` a line, one a second
heartbeat.json      wrapper, atomic             `Heartbeat`
influence/*.npz     trainer, atomic             arrays named by `NPZ_KEYS`
checkpoint.json     trainer, atomic             `Checkpoint`; only of jobs that save or load one
stop-requested      wrapper                     empty; its presence asks the job to save a checkpoint and end
stacks.txt          wrapper                     where every process of a hanging job stood before it was ended
outcome.json        wrapper, atomic, last       `Outcome`
==================  ==========================  ===============================================================
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

SCHEMA_VERSION = 1

ATTEMPT = "attempt.json"
CONFIG = "config.yaml"
CLAIM = "claim"
NODE = "node.json"
CONSOLE = "console.log"
METRICS = "metrics.jsonl"
MEMORY = "memory.jsonl"
HEARTBEAT = "heartbeat.json"
CHECKPOINT = "checkpoint.json"
STOP_REQUESTED = "stop-requested"
STACKS = "stacks.txt"
OUTCOME = "outcome.json"
INFLUENCE_DIR = "influence"

ENV_ATTEMPT_DIR = "ORCHESTRATOR_ATTEMPT_DIR"
"""Set by the wrapper for its child: where the trainer writes `influence/` and `metrics.jsonl`."""
ENV_ATTEMPT_TOKEN = "ORCHESTRATOR_ATTEMPT_TOKEN"
"""Set by the wrapper and by every backend: finds a job again by its environment."""
ENV_POOL = "ORCHESTRATOR_POOL"
"""Set by the wrapper for its child where the attempt has a pool: the pool's name."""
ENV_IMAGE = "ORCHESTRATOR_IMAGE"
"""Read by the wrapper: the container image that it runs in, as `name@sha256:...` where the digest is known."""

NPZ_KEYS = ("scores", "mask", "response_ids", "lengths", "accepted", "advantage", "uid", "meta")
"""scores float32 [R, L] (NaN exactly where mask is False), mask bool [R, L], response_ids int32 [R, L], lengths int64 [R],
accepted bool [R], advantage float32 [R], uid unicode [R] (prompt group), meta a JSON string (0-d unicode array)."""


def npz_name(step: int) -> str:
    """File name of one step's influence scores, below `INFLUENCE_DIR`."""
    return f"step_{step:06d}.npz"


class _Record:
    """JSON in both directions for the frozen dataclasses below."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, sort_keys=True)  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse one record; unknown keys are ignored.

        Raises:
            ValueError: not JSON, not an object, or a required key is missing.
        """
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError(f"{cls.__name__}: expected a JSON object, got {type(data).__name__}")
        known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        try:
            return cls(**{key: value for key, value in data.items() if key in known})
        except TypeError as error:
            raise ValueError(f"{cls.__name__}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class AttemptSpec(_Record):
    """`attempt.json`: everything that a node needs to run one attempt. Times are seconds since the epoch."""

    token: str
    """Random per attempt; a job found with this token is this attempt."""
    sweep: str
    point: str
    """Point id: the first characters of the point's identity hash."""
    point_hash: str
    attempt: int
    """1 for the first try of the point."""
    job_name: str
    pool: str | None = None
    card_memory_mib: int | None = None
    """Physical memory of one card of the pool; None on machines without GPUs."""
    overrides: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    prepare: list[list[str]] = field(default_factory=list)
    """Commands that run before the job (assets); idempotent, each must exit 0."""
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    expected_steps: int | None = None
    npz_glob: str | None = None
    """Below the attempt folder; None where the job writes no influence scores."""
    expected_npz: int | None = None
    time_limit_s: float | None = None
    """The wrapper ends the job after this long; None where the scheduler does it."""
    hang: Mapping[str, float | None] | None = None
    """When the wrapper takes the job for dead: the fields of `orchestrator.job.hang.HangLimits`. None: never."""
    created_at: float = 0.0
    schema: int = SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class Claim(_Record):
    """`claim`: who runs this attempt. (host, pid, started_at of the process) survives the reuse of a pid."""

    token: str
    host: str
    pid: int
    process_started_at: float
    time: float
    node: str = ""
    """The scheduler's own name for the host, where it has one."""


@dataclass(frozen=True, kw_only=True)
class Node(_Record):
    """`node.json`: hardware and software that the attempt runs on, as far as a program inside it can tell."""

    host: str
    gpus: list[str] = field(default_factory=list)
    """Product name of each card that the job may use."""
    driver: str | None = None
    """Version of NVIDIA's driver."""
    image: str | None = None
    """`ENV_IMAGE`."""
    python: str = ""
    packages: int = 0
    """Installed Python packages."""
    packages_sha256: str = ""
    """Of their names and versions, sorted, one `name==version` a line."""


@dataclass(frozen=True, kw_only=True)
class Heartbeat(_Record):
    """`heartbeat.json`, rewritten about once a second."""

    time: float
    phase: str
    """prepare | run | finish"""
    step: int | None
    """Last complete step seen in metrics.jsonl."""
    console_bytes: int
    last_output_at: float | None
    child_pid: int | None = None
    step_s: float | None = None
    """Median seconds from one step's end to the next, as the wrapper saw them."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint(_Record):
    """`checkpoint.json`: where this attempt took up the work, and where another one would."""

    resumed_after: int = 0
    """The step whose checkpoint was loaded; the records of steps up to it were restored, not made here. 0: none."""
    saved_after: int | None = None
    """The newest step whose checkpoint this attempt saved, metrics and scores included."""


@dataclass(frozen=True, kw_only=True)
class MemorySample(_Record):
    """A line of `memory.jsonl`. All sizes in bytes; None where this machine cannot tell."""

    time: float
    gpu_used: list[int] = field(default_factory=list)
    """NVML's used memory per GPU: the whole device, whoever uses it. Empty without NVML."""
    gpu_total: list[int] = field(default_factory=list)
    gpu_busy: list[int | None] = field(default_factory=list)
    """Percent of the last moments in which a kernel ran, per GPU, by NVML."""
    cgroup_current: int | None = None
    cgroup_peak: int | None = None
    cgroup_limit: int | None = None
    oom_kill: int | None = None
    """The cgroup's counter of kills by the kernel's out-of-memory killer since the job began."""
    process_pss: int | None = None
    """Proportional set size of the job's process tree: shared pages counted once."""


@dataclass(frozen=True, kw_only=True)
class OutputFile(_Record):
    path: str
    """Relative to the attempt folder."""
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Outcome(_Record):
    """`outcome.json`: the wrapper's last word. Its presence means that nothing of this attempt runs any more."""

    token: str
    exit_code: int | None
    """The child's exit code; None when a signal ended it or it never started."""
    signal: int | None
    started_at: float
    ended_at: float
    phase: str
    """Where it ended: prepare | run."""
    steps: list[int] = field(default_factory=list)
    oom_kills: int | None = None
    stop_reason: str | None = None
    """terminated (the wrapper was told to stop) | time_limit | hang | None"""
    stop_detail: str | None = None
    """For people: what the reason was read from."""
    first_step_s: float | None = None
    """Seconds from the start of the job to the end of its first step."""
    step_s: float | None = None
    """Median seconds from one step's end to the next."""
    error: str | None = None
    """Why the child could not be started, in words."""
    outputs: list[Mapping[str, Any]] = field(default_factory=list)
    """`OutputFile` objects."""
    host: str = ""
    schema: int = SCHEMA_VERSION


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a whole file or nothing: a temporary file beside it, flushed to disk, then renamed over it.

    `durable=False` leaves the flush to the kernel, for files that are rewritten all the time.
    """
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
