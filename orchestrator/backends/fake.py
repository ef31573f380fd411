"""A cluster that exists only in memory and does what it was told to: for tests of the loop, and to rehearse a sweep.

`FakeCluster` is what survives a crash of the orchestrator; a `FakeBackend` is one client of it. What a job does is a
`Play`: how its submission goes, which states it shows when, and what it leaves in the attempt folder. Jobs move when
somebody asks, by the cluster's clock, and they respect the claim as real ones do.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from orchestrator.backends.base import JobRef, JobRequest, JobState, JobStatus
from orchestrator.backends.fake_files import OnEnd, succeed, write_outcome
from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import BackendError, Deferred, SubmitUncertain, Unobservable
from orchestrator.job.claim import take
from orchestrator.job.stopping import TERMINATED
from orchestrator.model import Pool
from orchestrator.paths import AttemptPaths
from trainer_ext.records import Claim


class Reply(StrEnum):
    """How a submission goes."""

    ACCEPT = "accept"
    REJECT = "reject"
    DEFER = "defer"
    """There is no room now, as a quota says."""
    LOSE_REPLY = "lose_reply"
    """The job exists, and the caller never learns."""
    LOSE_REQUEST = "lose_request"
    """The caller learns as little, but no job exists."""


RUN_A_SECOND: tuple[tuple[float, JobState | None], ...] = (
    (0.0, JobState.QUEUED),
    (0.5, JobState.RUNNING),
    (1.5, JobState.ENDED),
)


@dataclass(frozen=True)
class Play:
    """What one submitted job does."""

    reply: Reply = Reply.ACCEPT
    timeline: tuple[tuple[float, JobState | None], ...] = RUN_A_SECOND
    """(seconds after submission, state from then on), ascending. None: the cluster does not answer about this job."""
    on_end: OnEnd | None = succeed
    """Called when the job first shows ENDED after it ran; None leaves nothing behind."""
    exit_code: int | None = None
    reason: str | None = None
    """The scheduler's words, shown once the job is over."""


Script = Callable[[JobRequest, int], Play]
"""(request, number of earlier submissions under this name) -> what this one does."""


def always(play: Play) -> Script:
    return lambda _request, _earlier: play


def by_name(plays: Mapping[str, Sequence[Play]], otherwise: Play | None = None) -> Script:
    """Plays by job name, one for each submission of it, the last one repeated."""

    def script(request: JobRequest, earlier: int) -> Play:
        named = plays.get(request.name)
        return named[min(earlier, len(named) - 1)] if named else otherwise or Play()

    return script


@dataclass
class FakeJob:
    """A row of the cluster's job table."""

    handle: str
    request: JobRequest
    play: Play
    submitted_at: float
    state: JobState | None = None
    claimed: bool = False

    def timeline_state(self, now: float) -> JobState | None:
        shown = [state for after, state in self.play.timeline if self.submitted_at + after <= now]
        return shown[-1] if shown else JobState.QUEUED

    def time_of(self, state: JobState) -> float:
        """When the job takes on a state, or would have."""
        return self.submitted_at + next((after for after, s in self.play.timeline if s is state), 0.0)


@dataclass
class FakeCluster:
    """The job table and what happens to it.

    Args:
        script: decides what each submission does.
        clock: makes the jobs move.
        pools: what `FakeBackend.pools` says.
    """

    script: Script = field(default_factory=lambda: always(Play()))
    clock: Clock = field(default_factory=SystemClock)
    pools: Sequence[Pool] = ()
    jobs: dict[str, FakeJob] = field(default_factory=dict)
    """handle -> job, in the order of submission."""
    unreachable: bool = False
    """Every question raises `Unobservable`, and every submission `SubmitUncertain`, while this is set."""
    submissions: dict[str, int] = field(default_factory=dict)
    """name -> number of submissions that reached the cluster."""

    def accept(self, request: JobRequest) -> tuple[Reply, FakeJob | None]:
        earlier = self.submissions.get(request.name, 0)
        self.submissions[request.name] = earlier + 1
        play = self.script(request, earlier)
        if play.reply in (Reply.REJECT, Reply.DEFER, Reply.LOSE_REQUEST):
            return play.reply, None
        job = FakeJob(f"fake-{len(self.jobs) + 1}", request, play, self.clock.now())
        self.jobs[job.handle] = job
        return play.reply, job

    def advance(self) -> None:
        """Let time pass for every job that is not over."""
        now = self.clock.now()
        for job in self.jobs.values():
            if job.state not in (JobState.ENDED, JobState.GONE):
                self._move(job, now)

    def cancel(self, job: FakeJob) -> None:
        self.advance()
        if job.state in (JobState.ENDED, JobState.GONE):
            return
        job.state = JobState.ENDED
        if job.claimed:
            started_at = job.time_of(JobState.RUNNING)
            write_outcome(job.request, started_at, self.clock.now(), signal=signal.SIGTERM, stop_reason=TERMINATED)

    def _move(self, job: FakeJob, now: float) -> None:
        job.state = job.timeline_state(now)
        began = any(state is JobState.RUNNING for after, state in job.play.timeline if job.submitted_at + after <= now)
        if began and not job.claimed:
            job.claimed = _claim(job, now)
            if not job.claimed:  # a duplicate: the loser of the claim ends at once and leaves nothing
                job.state, job.play = JobState.ENDED, replace(job.play, exit_code=0, on_end=None)
        if job.state is JobState.ENDED and job.claimed and job.play.on_end is not None:
            job.play.on_end(job.request, job.time_of(JobState.RUNNING), job.time_of(JobState.ENDED))


class FakeBackend:
    """A client of a fake cluster; without one, of a cluster of its own where everything succeeds within seconds."""

    name = "fake"

    def __init__(self, cluster: FakeCluster | None = None) -> None:
        self._cluster = cluster or FakeCluster()

    def submit(self, request: JobRequest) -> str:
        if self._cluster.unreachable:
            raise SubmitUncertain(f"{request.name}: the fake cluster does not answer")
        reply, job = self._cluster.accept(request)
        if reply is Reply.REJECT:
            raise BackendError(f"{request.name}: refused, as scripted")
        if reply is Reply.DEFER:
            raise Deferred(f"{request.name}: no room now, as scripted")
        if job is None or reply is Reply.LOSE_REPLY:
            raise SubmitUncertain(f"{request.name}: the reply was lost, as scripted")
        return job.handle

    def find(self, request: JobRequest) -> str | None:
        self._ask()
        same = (job for job in self._cluster.jobs.values() if job.request.token == request.token)
        return next((job.handle for job in same), None)

    def poll(self, jobs: Sequence[JobRef]) -> Mapping[str, JobStatus]:
        self._ask()
        statuses = ((job.handle, self._status(job.handle)) for job in jobs)
        return {handle: status for handle, status in statuses if status is not None}

    def cancel(self, job: JobRef) -> None:
        self._ask()
        if job.handle in self._cluster.jobs:
            self._cluster.cancel(self._cluster.jobs[job.handle])

    def pools(self) -> Sequence[Pool]:
        return self._cluster.pools

    def _ask(self) -> None:
        if self._cluster.unreachable:
            raise Unobservable("the fake cluster does not answer")
        self._cluster.advance()

    def _status(self, handle: str) -> JobStatus | None:
        job = self._cluster.jobs.get(handle)
        if job is None:
            return JobStatus(JobState.GONE)
        if job.state is None:
            return None
        if job.state is JobState.ENDED:
            return JobStatus(job.state, exit_code=job.play.exit_code, reason=job.play.reason)
        return JobStatus(job.state)


def _claim(job: FakeJob, now: float) -> bool:
    claim = Claim(token=job.request.token, host="fake", pid=0, process_started_at=now, time=now)
    return take(AttemptPaths(job.request.attempt_dir).claim, claim)
