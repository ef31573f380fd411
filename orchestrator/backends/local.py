"""This machine as a backend: every job is a process of its own session, and the process table is the scheduler.

Nothing is remembered between processes. Whoever asks finds a job by what it left: the outcome, the claim (host, pid and
start of the wrapper), the token in the environment of a living process. So a job survives the orchestrator, and the
next orchestrator finds it.

Footguns this file answers: a pid is reused, so it counts only together with the start time or the token; a dead child
of ours stays a zombie until it is reaped; death is looked at before the outcome, never after, or a job that ends
between the two looks like one that vanished; and a root folder on shared storage may hold jobs of another machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from socket import gethostname

import psutil

from orchestrator.backends.base import JobRef, JobRequest, JobState, JobStatus
from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import BackendError, Unobservable
from orchestrator.job import claim as claims
from orchestrator.job import processes
from orchestrator.model import Pool
from orchestrator.paths import AttemptPaths
from trainer_ext.records import ENV_ATTEMPT_TOKEN, Claim, Heartbeat, Outcome

WRAPPER_LOG = "wrapper.log"
FOREIGN_SILENCE_S = 600.0
"""A job of another machine counts as gone when its heartbeat, due every second, did not change for this long."""
_VISIBLE_WITHIN_S = 1.0
_START_TOLERANCE_S = 1.0
"""Two processes may compute the start of a third differently by some clock ticks."""


@dataclass(frozen=True)
class Handle:
    """`pid:start`. Pid 0 stands for a wrapper that died before it could sign its claim."""

    pid: int
    started_at: float

    def __str__(self) -> str:
        return f"{self.pid}:{self.started_at:.2f}"

    @classmethod
    def parse(cls, text: str) -> Handle:
        """What is no handle of this backend names no process."""
        pid, _, started_at = text.partition(":")
        try:
            return cls(int(pid), float(started_at))
        except ValueError:
            return cls(0, 0.0)


class LocalBackend:
    """Runs jobs on this machine, as many at once as it is given."""

    name = "local"

    def __init__(self, clock: Clock | None = None, host: str | None = None) -> None:
        self._clock = clock or SystemClock()
        self._host = host or gethostname()
        self._children: dict[str, int] = {}
        """handle -> pid, of the wrappers that this process started and has not reaped."""
        self._exit_codes: dict[str, int] = {}
        self._foreign_beats: dict[str, tuple[Heartbeat | None, float]] = {}
        """token -> (the heartbeat last seen, when it was first seen)."""

    def submit(self, request: JobRequest) -> str:
        self._reap()
        command = [sys.executable, "-m", "orchestrator.job", str(request.attempt_dir)]
        try:
            with (request.attempt_dir / WRAPPER_LOG).open("ab") as log:
                pid = _spawn(command, {**os.environ, ENV_ATTEMPT_TOKEN: request.token}, log.fileno())
        except OSError as error:
            raise BackendError(f"{request.name}: cannot start the job wrapper: {error}") from error
        process = psutil.Process(pid)  # ours until we reap it, so it is there
        self._wait_until_visible(process, request.token)
        handle = str(_handle(process))
        self._children[handle] = pid
        return handle

    def find(self, request: JobRequest) -> str | None:
        paths = AttemptPaths(request.attempt_dir)
        living = _wrappers(request.token)  # before the claim: a wrapper seen here may since have claimed and ended
        claim = _read_claim(paths)
        if claim is not None:
            return str(Handle(claim.pid, claim.process_started_at))
        if living:
            return str(_handle(living[0]))
        return str(Handle(0, paths.claim.stat().st_mtime)) if paths.claim.exists() else None

    def poll(self, jobs: Sequence[JobRef]) -> Mapping[str, JobStatus]:
        self._reap()
        statuses: dict[str, JobStatus] = {}
        for job in jobs:
            with contextlib.suppress(Unobservable):  # the storage does not answer; no word about the others
                status = self._status(job)
                if status is not None:
                    statuses[job.handle] = status
        return statuses

    def cancel(self, job: JobRef) -> None:
        claim = _read_claim(AttemptPaths(job.attempt_dir))
        if claim is not None and claim.host != self._host:
            raise Unobservable(f"{job.name} runs on {claim.host}; cancel it from there")
        owner = _owner(claim, job)
        for wrapper in [owner] if owner else _wrappers(job.token):
            with contextlib.suppress(psutil.NoSuchProcess):
                wrapper.terminate()

    def pools(self) -> Sequence[Pool]:
        """One pool for each model of card in this machine; empty without NVIDIA's driver."""
        from orchestrator.job.nvml import Nvml  # NVML is loaded only when somebody asks

        cards = sorted((pool_name(card.name), card.total) for card in Nvml().cards())
        grouped = [(name, [total for _, total in group]) for name, group in groupby(cards, key=lambda card: card[0])]
        return [Pool(name, gpus=len(totals), memory_mib=min(totals) // 1024**2) for name, totals in grouped]

    def _status(self, job: JobRef) -> JobStatus | None:
        """None where nothing can be said this time."""
        paths = AttemptPaths(job.attempt_dir)
        claim = _read_claim(paths)
        if claim is not None and claim.host != self._host:
            return self._foreign_status(job, paths)
        alive = _owner(claim, job) is not None
        if _has_outcome(paths, job.token):
            return JobStatus(JobState.ENDED, exit_code=self._exit_codes.get(job.handle))
        if alive:
            return JobStatus(JobState.RUNNING if paths.claim.exists() else JobState.QUEUED)
        return self._status_of_missing(job, paths, claim)

    def _status_of_missing(self, job: JobRef, paths: AttemptPaths, claim: Claim | None) -> JobStatus | None:
        """The wrapper that should run the job is no more, and it wrote no outcome."""
        if claim is None and _wrappers(job.token):
            return JobStatus(JobState.QUEUED)  # a second submission is about to claim
        if claim is None and _read_claim(paths) is not None:
            return None  # it claimed while we looked
        beat = _last_beat(paths)
        session = beat.child_pid if beat else None
        if processes.end_all(
            lambda: processes.of_attempt(job.token, session=session, folder=paths.dir), grace_s=0.0, clock=self._clock
        ):
            return None  # not gone as long as a part of it holds memory
        return JobStatus(JobState.GONE, exit_code=self._exit_codes.get(job.handle))

    def _foreign_status(self, job: JobRef, paths: AttemptPaths) -> JobStatus | None:
        """A job of another machine: the folder is all there is to see. Clocks are not compared across machines."""
        if _has_outcome(paths, job.token):
            return JobStatus(JobState.ENDED)
        now, beat, seen = self._clock.now(), _last_beat(paths), self._foreign_beats.get(job.token)
        if seen is None or seen[0] != beat:
            self._foreign_beats[job.token] = (beat, now)
            return JobStatus(JobState.RUNNING) if seen else None
        return JobStatus(JobState.GONE) if now - seen[1] >= FOREIGN_SILENCE_S else None

    def _wait_until_visible(self, process: psutil.Process, token: str) -> None:
        """The kernel shows the environment of a new program a moment after it started; before that `find` is blind."""
        deadline = self._clock.now() + _VISIBLE_WITHIN_S
        while processes.is_alive(process) and not processes.carries_token(process.pid, token):
            if self._clock.now() >= deadline:
                return
            self._clock.sleep(0.001)

    def _reap(self) -> None:
        """Note the exit codes of our own wrappers; without it they would stay zombies."""
        for handle, pid in list(self._children.items()):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                del self._children[handle]  # somebody else in this process reaped it
                continue
            if ended:
                del self._children[handle]
                self._exit_codes[handle] = os.waitstatus_to_exitcode(status)


def _spawn(command: list[str], environ: Mapping[str, str], log: int) -> int:
    """Start a process of a session of its own, so that no Ctrl-C meant for us reaches it; return its pid."""
    return os.posix_spawn(
        command[0],
        command,
        environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, log, 1),
            (os.POSIX_SPAWN_DUP2, log, 2),
        ],
        setsid=True,
        setsigmask=(),
    )


def pool_name(card: str) -> str:
    """The pool that a card of this name makes: `NVIDIA H100 80GB HBM3` -> h100, else the whole name in RFC 1123."""
    model = re.search(r"\b[A-Z]{1,2}\d{1,4}[A-Z]?\b", card)
    words = model.group() if model else card.removeprefix("NVIDIA ")
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _handle(process: psutil.Process) -> Handle:
    try:
        return Handle(process.pid, process.create_time())
    except psutil.NoSuchProcess:
        return Handle(process.pid, 0.0)  # ended already, and reaped


def _owner(claim: Claim | None, job: JobRef) -> psutil.Process | None:
    """The living wrapper of a job: the one that claimed it; before a claim, the one that was submitted."""
    handle = Handle(claim.pid, claim.process_started_at) if claim else Handle.parse(job.handle)
    try:
        process = psutil.Process(handle.pid)
        same = abs(process.create_time() - handle.started_at) < _START_TOLERANCE_S
    except psutil.Error:
        return None
    same = same or processes.carries_token(process.pid, job.token)  # the clock was set since
    return process if same and processes.is_alive(process) else None


def _wrappers(token: str) -> list[psutil.Process]:
    """Living wrappers of an attempt on this machine, oldest first, claimed or not."""
    found = [process for process in processes.of_attempt(token) if _is_wrapper(process)]
    return sorted(found, key=lambda process: _handle(process).started_at)


def _is_wrapper(process: psutil.Process) -> bool:
    try:
        return "orchestrator.job" in process.cmdline()
    except psutil.Error:
        return False


def _read_claim(paths: AttemptPaths) -> Claim | None:
    try:
        return claims.read(paths.claim)
    except OSError as error:
        raise Unobservable(f"cannot read {paths.claim}: {error}") from error


def _has_outcome(paths: AttemptPaths, token: str) -> bool:
    try:
        return Outcome.from_json(paths.outcome.read_bytes()).token == token
    except (FileNotFoundError, ValueError):
        return False
    except OSError as error:
        raise Unobservable(f"cannot read {paths.outcome}: {error}") from error


def _last_beat(paths: AttemptPaths) -> Heartbeat | None:
    try:
        return Heartbeat.from_json(paths.heartbeat.read_bytes())
    except (OSError, ValueError):
        return None
