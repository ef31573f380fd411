"""What `orchestrator.backends.base` promises, checked for every backend with the same scenarios.

A backend joins by a `Site`: how to make a client of it, and how to run one of the jobs below there. Real backends run
the code, the fake one plays the play.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import pytest

from orchestrator.backends.base import Backend, JobRef, JobRequest, JobState, JobStatus
from orchestrator.backends.fake import FakeBackend, FakeCluster, Play, Reply
from orchestrator.backends.fake_files import fail
from orchestrator.backends.local import LocalBackend
from orchestrator.backends.runai.backend import RunaiBackend
from orchestrator.backends.slurm.backend import SlurmBackend
from orchestrator.clock import Clock, FakeClock, SystemClock
from orchestrator.errors import SubmitUncertain
from orchestrator.job import processes
from orchestrator.model import Resources
from orchestrator.paths import AttemptPaths
from orchestrator.runai_spec import RunaiSpec
from tests.orchestrator.backends.slurm.double import SlurmDouble
from tests.runai.faults import accepted_then_dropped
from tests.runai.plane import ControlPlane
from tests.runai.server import InProcess
from trainer_ext.records import AttemptSpec, Outcome

PATIENCE_S = 30.0
FOREVER = ((0.0, JobState.QUEUED), (0.1, JobState.RUNNING))


@dataclass(frozen=True)
class Job:
    """The same job twice: as code for a real backend, as a play for the fake one."""

    code: str
    play: Play


SUCCEEDS = Job("print('done')", Play())
EXITS_3 = Job("raise SystemExit(3)", Play(on_end=fail(3)))
DIES_BY_SIGNAL = Job("import os; os.kill(os.getpid(), 9)", Play(on_end=fail(None, signal=9)))
RUNS_ON = Job("import time; time.sleep(60)", Play(timeline=FOREVER))


class Site(Protocol):
    clock: Clock

    def client(self) -> Backend:
        """A backend as a newly started orchestrator has it: it knows nothing of earlier clients."""

    def prepare(self, request: JobRequest, job: Job) -> None:
        """Arrange that submitting the request runs the job."""

    def lose_next_reply(self) -> None:
        """Where that can happen."""

    def close(self) -> None: ...


@dataclass
class LocalSite:
    clock: Clock = field(default_factory=SystemClock)
    clients: list[Backend] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def client(self) -> Backend:
        self.clients.append(LocalBackend())
        return self.clients[-1]

    def prepare(self, request: JobRequest, job: Job) -> None:
        self.tokens.append(request.token)
        write_spec(request, [sys.executable, "-c", job.code])

    def lose_next_reply(self) -> None: ...

    def close(self) -> None:
        for token in self.tokens:
            processes.end_all(lambda token=token: processes.of_attempt(token), grace_s=0, clock=self.clock)
        for client in self.clients:
            client.poll([])  # reaps


@dataclass
class SlurmSite:
    """The Slurm backend on a double of Slurm's commands that runs the scripts it is given."""

    clock: Clock = field(default_factory=SystemClock)
    slurm: SlurmDouble = field(default_factory=SlurmDouble)

    def client(self) -> Backend:
        return SlurmBackend(self.slurm, self.clock)

    def prepare(self, request: JobRequest, job: Job) -> None:
        write_spec(request, [sys.executable, "-c", job.code])

    def lose_next_reply(self) -> None:
        self.slurm.loses_next_reply = True

    def close(self) -> None:
        self.slurm.close()


@dataclass
class RunaiSite:
    """The Run:ai backend on a double of the control plane that runs containers as processes."""

    clock: Clock = field(default_factory=SystemClock)
    folder: TemporaryDirectory[str] = field(default_factory=TemporaryDirectory)

    def __post_init__(self) -> None:
        self.plane = ControlPlane(Path(self.folder.name))
        self.transport = InProcess(self.plane)

    def client(self) -> Backend:
        environ = {**self.plane.environ("http://runai.invalid"), "RUNAI_IMAGE": "any", "RUNAI_PYTHON": sys.executable}
        return RunaiBackend.of(RunaiSpec(), environ, clock=self.clock, transport=self.transport)

    def prepare(self, request: JobRequest, job: Job) -> None:
        write_spec(request, [sys.executable, "-c", job.code])

    def lose_next_reply(self) -> None:
        self.plane.faults.add(accepted_then_dropped())

    def close(self) -> None:
        self.plane.close()
        self.folder.cleanup()
        assert self.transport.api.dishonest == []


@dataclass
class FakeSite:
    clock: FakeClock = field(default_factory=FakeClock)
    plays: dict[str, Play] = field(default_factory=dict)
    cluster: FakeCluster = field(init=False)

    def __post_init__(self) -> None:
        self.cluster = FakeCluster(lambda request, _: self.plays[request.token], self.clock)
        self.reply = Reply.ACCEPT

    def client(self) -> Backend:
        return FakeBackend(self.cluster)

    def prepare(self, request: JobRequest, job: Job) -> None:
        self.plays[request.token] = replace(job.play, reply=self.reply)
        write_spec(request, ["true"])

    def lose_next_reply(self) -> None:
        self.reply = Reply.LOSE_REPLY

    def close(self) -> None: ...


def write_spec(request: JobRequest, command: list[str]) -> None:
    spec = AttemptSpec(
        token=request.token,
        sweep="s",
        point="p",
        point_hash="h",
        attempt=1,
        job_name=request.name,
        command=command,
    )
    AttemptPaths(request.attempt_dir).spec.write_text(spec.to_json())


@pytest.fixture(params=[LocalSite, SlurmSite, RunaiSite, FakeSite], ids=["local", "slurm", "runai", "fake"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    site = request.param()
    yield site
    site.close()


@pytest.fixture
def make(site: Site, tmp_path: Path) -> Callable[..., JobRequest]:
    """make(job, name) -> a request for it, ready to be submitted."""

    def make(job: Job, name: str = "job-a1") -> JobRequest:
        request = JobRequest(name, f"token-{tmp_path.name}-{name}", tmp_path / name, None, Resources())
        request.attempt_dir.mkdir()
        site.prepare(request, job)
        return request

    return make


def ref(request: JobRequest, handle: str) -> JobRef:
    return JobRef(handle, request.name, request.token, request.attempt_dir)


def wait_for(site: Site, backend: Backend, job: JobRef, *states: JobState) -> JobStatus:
    deadline = site.clock.now() + PATIENCE_S
    while site.clock.now() < deadline:
        status = backend.poll([job]).get(job.handle)
        if status is not None and status.state in states:
            return status
        site.clock.sleep(0.02)
    raise AssertionError(f"{job.handle} never became {states}")


def wait_for_claim(site: Site, job: JobRef) -> None:
    """A scheduler calls a job running before our wrapper does; one that ends it in between leaves no outcome."""
    deadline = site.clock.now() + PATIENCE_S
    while not AttemptPaths(job.attempt_dir).claim.exists():
        assert site.clock.now() < deadline, f"nobody claimed {job.attempt_dir}"
        site.clock.sleep(0.02)


def outcome(request: JobRequest) -> Outcome:
    return Outcome.from_json(AttemptPaths(request.attempt_dir).outcome.read_text())


@pytest.mark.parametrize(
    ("job", "exit_code", "signal"),
    [(SUCCEEDS, 0, None), (EXITS_3, 3, None), (DIES_BY_SIGNAL, None, 9)],
    ids=["success", "exit-3", "signal-9"],
)
def test_a_job_ends_and_its_folder_says_how(site, make, job, exit_code, signal):
    backend, request = site.client(), make(job)
    handle = backend.submit(request)
    wait_for(site, backend, ref(request, handle), JobState.ENDED)
    assert (outcome(request).exit_code, outcome(request).signal) == (exit_code, signal)
    assert outcome(request).token == request.token


def test_states_never_go_back(site, make):
    backend, request = site.client(), make(SUCCEEDS)
    job = ref(request, backend.submit(request))
    order = [JobState.QUEUED, JobState.RUNNING, JobState.ENDED]
    seen = [JobState.QUEUED]
    while seen[-1] is not JobState.ENDED:
        status = backend.poll([job])[job.handle]
        assert order.index(status.state) >= order.index(seen[-1])
        seen.append(status.state)
        site.clock.sleep(0.02)
    assert backend.poll([job])[job.handle].state is JobState.ENDED


def test_cancelling_ends_the_job_and_asking_again_is_no_error(site, make):
    backend, request = site.client(), make(RUNS_ON)
    job = ref(request, backend.submit(request))
    wait_for(site, backend, job, JobState.RUNNING)
    wait_for_claim(site, job)
    backend.cancel(job)
    backend.cancel(job)
    wait_for(site, backend, job, JobState.ENDED)
    assert outcome(request).stop_reason == "terminated"
    backend.cancel(job)
    assert backend.poll([job])[job.handle].state is JobState.ENDED


def test_cancelling_at_once_ends_the_job_too(site, make):
    backend, request = site.client(), make(RUNS_ON)
    job = ref(request, backend.submit(request))
    backend.cancel(job)
    wait_for(site, backend, job, JobState.ENDED, JobState.GONE)


def test_a_job_that_was_never_submitted_is_positively_unknown(site, make):
    assert site.client().find(make(SUCCEEDS)) is None


def test_a_submitted_job_is_found_by_its_token(site, make):
    backend, request = site.client(), make(RUNS_ON)
    handle = backend.submit(request)
    assert backend.find(request) == handle
    wait_for(site, backend, ref(request, handle), JobState.RUNNING)
    assert backend.find(request) == handle
    backend.cancel(ref(request, handle))


def test_a_job_that_ended_is_still_found(site, make):
    backend, request = site.client(), make(SUCCEEDS)
    handle = backend.submit(request)
    wait_for(site, backend, ref(request, handle), JobState.ENDED)
    assert backend.find(request) == handle


def test_another_client_finds_polls_and_cancels_the_job(site, make):
    request = make(RUNS_ON)
    handle = site.client().submit(request)
    successor = site.client()
    assert successor.find(request) == handle
    job = ref(request, handle)
    wait_for(site, successor, job, JobState.RUNNING)
    successor.cancel(job)
    wait_for(site, successor, job, JobState.ENDED)


def test_a_job_whose_reply_was_lost_can_be_adopted(site, make):
    site.lose_next_reply()
    request = make(SUCCEEDS)
    with suppress(SubmitUncertain):
        site.client().submit(request)
    successor = site.client()
    handle = successor.find(request)
    assert handle is not None
    wait_for(site, successor, ref(request, handle), JobState.ENDED)
    assert outcome(request).exit_code == 0


def test_one_attempt_submitted_twice_runs_once(site, make, tmp_path):
    marker = tmp_path / "runs"
    code = f"open({str(marker)!r}, 'a').write('x'); import time; time.sleep(0.2)"
    backend, request = site.client(), make(Job(code, Play(on_end=_append_to(marker))))
    handles = [backend.submit(request), backend.submit(request)]
    for handle in handles:
        wait_for(site, backend, ref(request, handle), JobState.ENDED)
    assert marker.read_text() == "x"
    assert outcome(request).exit_code == 0


def _append_to(marker: Path):
    def on_end(request: JobRequest, started_at: float, ended_at: float) -> None:
        with marker.open("a") as file:
            file.write("x")
        fail(0)(request, started_at, ended_at)

    return on_end


def test_a_handle_that_names_no_job_is_gone(site, make):
    request = make(SUCCEEDS)
    for handle in ("999999999:1.0", "what?"):
        job = ref(request, handle)
        assert site.client().poll([job])[handle].state is JobState.GONE
        site.client().cancel(job)


def test_polling_nothing_says_nothing(site):
    assert site.client().poll([]) == {}


def test_jobs_are_told_apart(site, make):
    backend = site.client()
    good, bad = make(SUCCEEDS, "good-a1"), make(EXITS_3, "bad-a1")
    jobs = [ref(request, backend.submit(request)) for request in (good, bad)]
    for job in jobs:
        wait_for(site, backend, job, JobState.ENDED)
    assert (outcome(good).exit_code, outcome(bad).exit_code) == (0, 3)


def test_what_the_pools_say_can_be_stored(site):
    assert json.dumps([pool.name for pool in site.client().pools()])
