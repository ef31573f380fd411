"""The contract between the loop and whatever runs jobs.

What every backend promises, and `tests/contracts/` checks:

1. `submit` starts `python -m orchestrator.job ATTEMPT_DIR` once. It returns a handle (a short string that finds the job
   again after this process died), raises `BackendError` when the backend positively refused, `Deferred` when it refused
   for want of room now (a quota, a limit on submissions), or `SubmitUncertain` when it cannot know. It never retries by
   itself.
2. `find` looks a job up by its deterministic name and token and returns its handle, or None when the backend positively
   knows no such job. When it cannot tell it raises `Unobservable`.
3. `poll` asks about all jobs at once. A handle that is absent from the answer was not observable this time; that says
   nothing about the job. `GONE` is said only when the backend positively knows that the job no longer exists.
4. `cancel` asks for the end and returns at once; asking twice, or for a job that ended, is no error.
5. The evidence of how a job ended is the attempt folder; `JobStatus` adds what only the scheduler knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from orchestrator.errors import BackendError
from orchestrator.model import Pool, Resources


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    """The job is over, whatever its exit code."""
    GONE = "gone"
    """The backend positively knows no such job any more, and saw no end."""


@dataclass(frozen=True)
class JobRequest:
    """One submission. The attempt folder exists and holds `attempt.json` and `config.yaml`."""

    name: str
    """Deterministic; RFC 1123, at most 50 characters."""
    token: str
    attempt_dir: Path
    pool: Pool | None
    resources: Resources
    after: JobRef | None = None
    """The job of the point's last attempt, which is over: a scheduler may run this one under the same id."""


@dataclass(frozen=True)
class JobRef:
    """A submitted job, as the store remembers it."""

    handle: str
    name: str
    token: str
    attempt_dir: Path


@dataclass(frozen=True)
class JobStatus:
    state: JobState
    exit_code: int | None = None
    """The scheduler's view of the wrapper's exit code."""
    reason: str | None = None
    """The scheduler's own word: NODE_FAIL, PREEMPTED, OUT_OF_MEMORY, TIMEOUT, CANCELLED, ..."""
    is_stuck: bool = False
    """Queued, and the scheduler will not start it unless somebody does something; `reason` says what is the matter."""


@dataclass(frozen=True)
class Sign:
    """One thing that `doctor` looked at."""

    check: str
    ok: bool
    detail: str


class Backend(Protocol):
    name: str

    def submit(self, request: JobRequest) -> str: ...

    def find(self, request: JobRequest) -> str | None: ...

    def poll(self, jobs: Sequence[JobRef]) -> Mapping[str, JobStatus]: ...

    def cancel(self, job: JobRef) -> None: ...

    def pools(self) -> Sequence[Pool]:
        """Pools this backend knows of without being told (this machine's own, for local); may be empty."""


@runtime_checkable
class ArrayBackend(Backend, Protocol):
    """A backend that takes many submissions at once for the price of one."""

    def submit_many(self, requests: Sequence[JobRequest]) -> Mapping[str, str | BackendError]:
        """By token, the handle, or the error that `submit` would have raised for this one."""


@runtime_checkable
class ContainerBackend(Backend, Protocol):
    """A backend whose jobs see other paths than this process does, and another interpreter."""

    @property
    def python(self) -> str:
        """The interpreter that runs a job."""

    def inside(self, path: Path) -> Path:
        """Where a job sees a path of this machine; raises `EnvironmentProblem` where it does not see it at all."""


@runtime_checkable
class TalkativeBackend(Backend, Protocol):
    """A backend that can be asked about one job, for people. Both raise `OrchestratorError` where nothing is to be had."""

    def explain(self, job: JobRef) -> Sequence[str]:
        """What the scheduler says about the job now: what it waits for, its last events. One fact a line."""

    def live_log(self, job: JobRef) -> bytes:
        """All that the job's container has printed, wherever the scheduler keeps it."""
