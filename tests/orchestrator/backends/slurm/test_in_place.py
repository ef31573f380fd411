"""A point's next attempt under the id of its last one."""

from __future__ import annotations

import pytest

from orchestrator.backends.base import JobState, JobStatus
from orchestrator.backends.slurm import entry
from orchestrator.backends.slurm.backend import SlurmBackend
from orchestrator.backends.slurm.commands import CommandTimeout, Reply
from orchestrator.backends.slurm.in_place import AFTER_S, KnownJob
from orchestrator.errors import SubmitUncertain
from orchestrator.model import Pool, Resources
from tests.orchestrator.backends.slurm.conftest import H200, ref

SHOWN = (
    "JobId=9 JobName=oom_srun UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901751 Nice=0 Account=root "
    "JobState=FAILED Reason=NonZeroExitCode Dependency=(null) Requeue=1 Restarts=2 BatchFlag=1 ExitCode=1:0 "
    "Socks/Node=* WorkDir=jobs Comment=orch:oom_srun:a1  StdErr=jobs/9.out Power= TresPerNode=gres:gpu:8 \n"
)


def test_a_job_is_read_from_what_scontrol_shows():
    assert KnownJob.parse(SHOWN) == KnownJob("oom_srun", "orch:oom_srun:a1", "FAILED", 2, requeue=True)
    assert KnownJob.parse("slurm_load_jobs error") is None


@pytest.fixture
def first(backend, slurm, make):
    """(request, handle) of an attempt that ran out of memory on h100."""
    request = make("a1")
    handle = backend.submit(request)
    slurm.end(handle, "OUT_OF_MEMORY", 125)
    return request, handle


def test_the_next_attempt_goes_to_the_other_pool_under_the_same_id(backend, slurm, make, first):
    request, handle = first
    following = make("a2", pool=H200, after=ref(request, handle))
    assert backend.submit(following) == handle
    assert len(slurm.jobs) == 1
    assert slurm.jobs[handle].options["partition"] == "h200"
    assert slurm.jobs[handle].options["starttime"] == "now"
    assert not slurm.jobs[handle].held
    assert entry.newest(request.attempt_dir) == following.attempt_dir


def test_the_first_attempts_end_is_not_taken_for_the_seconds(backend, slurm, make, first, clock):
    request, handle = first
    following = make("a2", pool=H200, after=ref(request, handle))
    backend.submit(following)
    job = ref(following, handle)
    assert backend.poll([job])[handle].state is JobState.QUEUED
    slurm.end(handle, "TIMEOUT")
    assert backend.poll([job])[handle] == JobStatus(JobState.ENDED, reason="TIMEOUT")
    slurm.forget(handle)
    assert SlurmBackend(slurm, clock).poll([job])[handle] == JobStatus(JobState.ENDED, reason="TIMEOUT")


def test_a_task_of_an_array_too(backend, slurm, make):
    requests = [make("r0"), make("r1")]
    handles = backend.submit_many(requests)
    slurm.end("1_1", "COMPLETED")
    following = make("a2", pool=H200, after=ref(requests[1], handles[requests[1].token]))
    assert backend.submit_many([following]) == {following.token: "1_1"}
    assert (slurm.jobs["1_0"].restarts, slurm.jobs["1_1"].restarts) == (0, 1)


def test_a_job_that_slurm_put_back_itself_is_used_once_its_last_start_is_cleared_away(backend, slurm, make):
    request = make("a1")
    handle = backend.submit(request)
    slurm.put_back(handle, "PREEMPTED")
    following = make("a2", after=ref(request, handle))
    assert backend.submit(following) == handle
    assert slurm.jobs[handle].restarts == 1
    assert slurm.jobs[handle].options["starttime"] == f"now+{AFTER_S}seconds"
    assert backend.poll([ref(following, handle)])[handle].state is JobState.QUEUED


def test_what_cannot_be_changed_needs_a_new_job(backend, slurm, make, first):
    request, handle = first
    typed = Pool("h200", options={"gres": "gpu:h200:8"})
    assert backend.submit(make("a2", pool=typed, after=ref(request, handle))) == "2"
    fewer = make("a3", resources=Resources(gpus=1), after=ref(request, handle))
    assert backend.submit(fewer) == "3"
    assert slurm.jobs[handle].state == "OUT_OF_MEMORY"


@pytest.mark.parametrize("what", ["forgotten", "running", "cancelled"])
def test_a_job_that_is_not_there_to_be_used_is_replaced_by_a_new_one(backend, slurm, make, first, what):
    request, handle = first
    if what == "forgotten":
        slurm.forget(handle)
    else:
        slurm.end(handle, what.upper())
    assert backend.submit(make("a2", pool=H200, after=ref(request, handle))) == "2"


def test_where_slurm_refuses_the_change_the_old_job_is_ended_and_a_new_one_submitted(slurm, clock, make, first):
    request, handle = first

    def refuses(command, timeout_s=60.0):
        if command[:2] == ["scontrol", "update"]:
            return Reply(1, err="Access/permission denied for job 1")
        return slurm(command, timeout_s)

    following = make("a2", pool=H200, after=ref(request, handle))
    backend = SlurmBackend(refuses, clock)
    assert backend.submit(following) == "2"
    assert slurm.jobs[handle].state == "CANCELLED"
    assert backend.find(following) == "2"


@pytest.mark.parametrize("dies_at", ["requeuehold", "update", "release"])
@pytest.mark.parametrize("was_done", [True, False], ids=["done", "not done"])
def test_whoever_dies_half_way_is_followed_by_one_who_goes_on(slurm, clock, make, first, dies_at, was_done):
    request, handle = first

    def dies(command, timeout_s=60.0):
        if command[:2] == ["scontrol", dies_at]:
            if was_done:
                slurm(command, timeout_s)
            raise CommandTimeout("scontrol did not answer within 60 s")
        return slurm(command, timeout_s)

    following = make("a2", pool=H200, after=ref(request, handle))
    with pytest.raises(SubmitUncertain):
        SlurmBackend(dies, clock).submit(following)
    successor = SlurmBackend(slurm, clock)
    found = successor.find(following) or successor.submit(following)
    assert (found, len(slurm.jobs), slurm.jobs[handle].restarts) == (handle, 1, 1)
    assert slurm.jobs[handle].options["partition"] == "h200"
    assert not slurm.jobs[handle].held
