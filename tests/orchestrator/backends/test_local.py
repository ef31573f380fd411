"""What is special about this machine as a backend; what all backends share is in tests/contracts."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orchestrator.backends.base import JobRef, JobRequest, JobState
from orchestrator.backends.local import FOREIGN_SILENCE_S, WRAPPER_LOG, LocalBackend, pool_name
from orchestrator.clock import FakeClock, SystemClock
from orchestrator.errors import BackendError, Unobservable
from orchestrator.job import processes
from orchestrator.model import Resources
from orchestrator.paths import AttemptPaths
from trainer_ext.records import AttemptSpec, Claim, Heartbeat, Outcome

PATIENCE_S = 30.0
CLOCK = SystemClock()


@pytest.fixture
def request_(tmp_path: Path) -> Iterator[JobRequest]:
    """An attempt whose job trains for ever, with a helper process that left it, as Ray's daemons do."""
    token = f"token-{tmp_path}"
    daemon = "import time; time.sleep(60)"
    code = (
        f"import json, subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {daemon!r}], "
        "start_new_session=True)\n"
        "with open('metrics.jsonl', 'w', buffering=1) as file:\n"
        "    for step in range(1, 10**9):\n"
        "        file.write(json.dumps({'step': step, 'data': {}}) + '\\n'); time.sleep(0.005)\n"
    )
    spec = AttemptSpec(
        token=token,
        sweep="s",
        point="p",
        point_hash="h",
        attempt=1,
        job_name="job-a1",
        command=[sys.executable, "-c", code],
    )
    (tmp_path / "1").mkdir()
    AttemptPaths(tmp_path / "1").spec.write_text(spec.to_json())
    yield JobRequest("job-a1", token, tmp_path / "1", None, Resources())
    processes.end_all(lambda: processes.of_attempt(token), grace_s=0, clock=CLOCK)


def ref(request: JobRequest, handle: str) -> JobRef:
    return JobRef(handle, request.name, request.token, request.attempt_dir)


def state_of(backend: LocalBackend, job: JobRef) -> JobState | None:
    status = backend.poll([job]).get(job.handle)
    return status.state if status else None


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def wait_for(backend: LocalBackend, job: JobRef, state: JobState) -> None:
    wait_until(lambda: state_of(backend, job) is state)


def claimed_by(request: JobRequest, *, host: str, pid: int, started_at: float) -> None:
    claim = Claim(token=request.token, host=host, pid=pid, process_started_at=started_at, time=started_at)
    AttemptPaths(request.attempt_dir).claim.write_text(claim.to_json())


@pytest.mark.parametrize("moment", range(8))
def test_after_the_wrapper_is_killed_the_job_is_gone_and_nothing_of_it_runs(request_, moment):
    """At random moments: before Python is up, before the claim, between claim and start, in the middle of training."""
    backend = LocalBackend()
    job = ref(request_, backend.submit(request_))
    time.sleep(random.Random(moment).uniform(0.0, 0.1 * (moment + 1)))
    os.kill(int(job.handle.split(":")[0]), signal.SIGKILL)
    wait_for(backend, job, JobState.GONE)
    assert processes.of_attempt(request_.token) == []
    assert not AttemptPaths(request_.attempt_dir).outcome.exists()
    assert state_of(LocalBackend(), job) is JobState.GONE


def test_an_orphan_without_the_token_is_found_by_its_session_and_folder(request_):
    """Ray's agents: their environment is overwritten, and their parents die together with the wrapper."""
    paths = AttemptPaths(request_.attempt_dir)
    orphan = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    code = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {orphan!r}], env={{}}); time.sleep(60)"
    )
    spec = AttemptSpec.from_json(paths.spec.read_text())
    paths.spec.write_text(replace(spec, command=[sys.executable, "-c", code]).to_json())
    backend = LocalBackend()
    job = ref(request_, backend.submit(request_))
    wait_until(lambda: paths.heartbeat.exists() and Heartbeat.from_json(paths.heartbeat.read_text()).child_pid)
    wait_until(lambda: paths.console.read_text().endswith("\n"))
    found = psutil.Process(int(paths.console.read_text()))
    assert not processes.carries_token(found.pid, request_.token)
    os.kill(int(job.handle.split(":")[0]), signal.SIGKILL)
    wait_for(backend, job, JobState.GONE)
    assert not processes.is_alive(found)


def test_the_exit_code_of_ones_own_wrapper_is_told(request_):
    backend = LocalBackend()
    job = ref(request_, backend.submit(request_))
    os.kill(int(job.handle.split(":")[0]), signal.SIGKILL)
    wait_for(backend, job, JobState.GONE)
    assert backend.poll([job])[job.handle].exit_code == -signal.SIGKILL


def test_a_wrapper_that_refuses_is_gone_and_its_log_says_why(request_):
    AttemptPaths(request_.attempt_dir).spec.write_text("{")
    backend = LocalBackend()
    job = ref(request_, backend.submit(request_))
    wait_for(backend, job, JobState.GONE)
    assert backend.poll([job])[job.handle].exit_code == 2
    assert "attempt.json" in (request_.attempt_dir / WRAPPER_LOG).read_text()


def test_submitting_without_a_folder_is_refused(tmp_path):
    with pytest.raises(BackendError, match="job-a1"):
        LocalBackend().submit(JobRequest("job-a1", "t", tmp_path / "no", None, Resources()))


def test_a_reused_pid_is_not_the_job(request_):
    """The claim names a living process, but one that began at another time and has another environment."""
    own = psutil.Process()
    claimed_by(request_, host=socket.gethostname(), pid=own.pid, started_at=own.create_time() - 100.0)
    job = ref(request_, f"{own.pid}:{own.create_time() - 100.0}")
    assert state_of(LocalBackend(), job) is JobState.GONE
    LocalBackend().cancel(job)  # or this test run would end here


def test_a_wrapper_is_known_by_its_token_when_the_clock_was_set(request_):
    backend = LocalBackend()
    handle = backend.submit(request_)
    job = ref(request_, handle)
    wait_for(backend, job, JobState.RUNNING)
    pid = int(handle.split(":")[0])
    claimed_by(request_, host=socket.gethostname(), pid=pid, started_at=psutil.Process(pid).create_time() - 3600.0)
    assert state_of(backend, job) is JobState.RUNNING
    backend.cancel(job)
    wait_for(backend, job, JobState.ENDED)


def test_a_claim_without_a_name_was_a_job(request_):
    """Its wrapper died between creating the claim and signing it: nobody can ever run this attempt again."""
    AttemptPaths(request_.attempt_dir).claim.touch()
    handle = LocalBackend().find(request_)
    assert handle is not None
    assert state_of(LocalBackend(), ref(request_, handle)) is JobState.GONE


def test_an_outcome_of_another_attempt_is_not_this_ones_end(request_):
    outcome = Outcome(token="other", exit_code=0, signal=None, started_at=0.0, ended_at=1.0, phase="run")
    AttemptPaths(request_.attempt_dir).outcome.write_text(outcome.to_json())
    assert state_of(LocalBackend(), ref(request_, "999999999:1.0")) is JobState.GONE


def test_a_job_without_an_answer_does_not_silence_the_others(request_, tmp_path):
    blocked = JobRef("1:2", "blocked", "t", tmp_path / "blocked")
    AttemptPaths(blocked.attempt_dir).claim.mkdir(parents=True)  # reading it is an error
    job = ref(request_, "999999999:1.0")
    assert set(LocalBackend().poll([blocked, job])) == {job.handle}


class TestJobOfAnotherMachine:
    """The state folder is on shared storage: of a job that runs elsewhere only the files can be seen."""

    @pytest.fixture
    def job(self, request_) -> JobRef:
        claimed_by(request_, host="elsewhere", pid=1, started_at=1.0)
        return ref(request_, "1:1.0")

    def beat(self, job: JobRef, time: float) -> None:
        beat = Heartbeat(time=time, phase="run", step=None, console_bytes=0, last_output_at=None)
        AttemptPaths(job.attempt_dir).heartbeat.write_text(beat.to_json())

    def test_it_runs_while_its_heartbeat_moves(self, job):
        clock = FakeClock()
        backend = LocalBackend(clock)
        self.beat(job, 1.0)
        assert state_of(backend, job) is None
        for moment in range(2, 5):
            clock.sleep(FOREIGN_SILENCE_S)
            self.beat(job, float(moment))
            assert state_of(backend, job) is JobState.RUNNING

    def test_it_is_gone_after_a_long_silence_only(self, job):
        clock = FakeClock()
        backend = LocalBackend(clock)
        self.beat(job, 1.0)
        assert state_of(backend, job) is None
        clock.sleep(FOREIGN_SILENCE_S - 1.0)
        assert state_of(backend, job) is None
        clock.sleep(1.0)
        assert state_of(backend, job) is JobState.GONE

    def test_its_outcome_counts(self, job):
        outcome = Outcome(token=job.token, exit_code=0, signal=None, started_at=0.0, ended_at=1.0, phase="run")
        AttemptPaths(job.attempt_dir).outcome.write_text(outcome.to_json())
        assert state_of(LocalBackend(), job) is JobState.ENDED

    def test_it_is_found_but_cannot_be_cancelled_from_here(self, request_, job):
        assert LocalBackend().find(request_) == "1:1.00"
        with pytest.raises(Unobservable, match="elsewhere"):
            LocalBackend().cancel(job)


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("Tesla T4", "t4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA GeForce RTX 4090", "geforce-rtx-4090"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada-generation"),
    ],
)
def test_a_pool_is_named_by_its_card(card, name):
    assert pool_name(card) == name
