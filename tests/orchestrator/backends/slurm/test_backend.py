"""What is special about Slurm as a backend: what it knows late, says wrongly, or cannot say."""

from __future__ import annotations

import pytest

from orchestrator.backends import load
from orchestrator.backends.base import ArrayBackend, JobState, JobStatus
from orchestrator.backends.slurm.backend import COMPLETING_S, GONE_AFTER_S, VISIBLE_WITHIN_S, SlurmBackend
from orchestrator.backends.slurm.commands import Reply
from orchestrator.backends.slurm.ticket import STARTED
from orchestrator.errors import BackendError, Deferred, SubmitUncertain, Unobservable
from orchestrator.model import Pool, Resources
from orchestrator.paths import AttemptPaths
from tests.orchestrator.backends.slurm.conftest import H200, ref
from trainer_ext.records import Outcome


def write_outcome(request):
    outcome = Outcome(
        token=request.token, exit_code=0, signal=None, started_at=1.0, ended_at=2.0, phase="run", host="n"
    )
    AttemptPaths(request.attempt_dir).outcome.write_text(outcome.to_json())


@pytest.fixture
def seen(backend):
    """seen(request, handle) -> what one poll says of the job, or None."""
    return lambda request, handle: backend.poll([ref(request, handle)]).get(handle)


# ---- states --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED"])
def test_a_job_that_has_its_node_runs(backend, slurm, make, seen, word):
    request = make()
    handle = backend.submit(request)
    assert seen(request, handle).state is JobState.QUEUED
    slurm.end(handle, word)
    assert seen(request, handle).state is JobState.RUNNING


def test_a_node_that_cannot_clear_a_finished_job_away_does_not_hold_it_up(backend, slurm, make, seen, clock):
    request = make()
    handle = backend.submit(request)
    slurm.end(handle, "COMPLETING")
    write_outcome(request)
    assert seen(request, handle).state is JobState.RUNNING
    clock.sleep(COMPLETING_S)
    assert seen(request, handle) == JobStatus(JobState.ENDED)


@pytest.mark.parametrize(
    ("reason", "is_stuck"),
    [
        ("Resources", False),
        ("ReqNodeNotAvail, Reserved for maintenance", False),
        ("PartitionTimeLimit", True),
        ("JobHeldAdmin", True),
    ],
)
def test_a_job_that_waits_for_what_never_comes_is_told_from_one_that_waits(
    backend, slurm, make, seen, reason, is_stuck
):
    request = make()
    handle = backend.submit(request)
    slurm.jobs[handle].reason = reason
    assert seen(request, handle) == JobStatus(JobState.QUEUED, reason=reason, is_stuck=is_stuck)


@pytest.mark.parametrize("word", ["OUT_OF_MEMORY", "TIMEOUT", "CANCELLED", "NODE_FAIL", "PREEMPTED", "DEADLINE"])
def test_an_end_is_said_in_slurms_word(backend, slurm, make, seen, word):
    request = make()
    handle = backend.submit(request)
    slurm.end(handle, word)
    assert seen(request, handle) == JobStatus(JobState.ENDED, reason=word)


def test_a_word_of_a_newer_slurm_says_nothing(backend, slurm, make, seen):
    request = make()
    handle = backend.submit(request)
    slurm.end(handle, "BRAND_NEW_STATE")
    assert seen(request, handle) is None


def test_a_wrapper_that_exited_0_counts_when_its_outcome_can_be_seen(backend, slurm, make, seen, clock):
    early, never = make("early"), make("never")
    handles = [backend.submit(early), backend.submit(never)]
    for handle in handles:
        slurm.end(handle, "COMPLETED")
    assert (seen(early, handles[0]), seen(never, handles[1])) == (None, None)
    write_outcome(early)
    assert seen(early, handles[0]).state is JobState.ENDED
    clock.sleep(VISIBLE_WITHIN_S)
    assert seen(never, handles[1]).state is JobState.ENDED


def test_one_squeue_asks_for_all_and_sacct_is_left_alone(backend, slurm, make):
    requests = [make(f"r{i}") for i in range(5)]
    jobs = [ref(request, backend.submit(request)) for request in requests]
    slurm.calls.clear()
    assert len(backend.poll(jobs)) == 5
    assert [call[0] for call in slurm.calls] == ["squeue"]


def test_another_job_that_got_the_same_id_is_not_taken_for_ours(backend, slurm, make, seen):
    request = make()
    handle = backend.submit(request)
    slurm.end(handle, "FAILED")
    slurm.jobs[handle].options["comment"] = "somebody else's"
    slurm.jobs[handle].options["job-name"] = "theirs"
    assert seen(request, handle) is None


# ---- what squeue has forgotten -------------------------------------------------------------------------------------


def test_what_squeue_has_forgotten_sacct_knows(backend, slurm, make, seen):
    request = make()
    handle = backend.submit(request)
    slurm.end(handle, "OUT_OF_MEMORY", 125)
    slurm.forget(handle)
    assert seen(request, handle) == JobStatus(JobState.ENDED, reason="OUT_OF_MEMORY")


def test_a_stub_of_accounting_says_nothing(backend, slurm, make, seen):
    request = make()
    handle = backend.submit(request)
    slurm.forget(handle)
    slurm.answers["sacct"] = Reply(0, f"{handle}|allocation||FAILED|1:0|0:0|2026-11-21T09:28:44|\n")
    assert seen(request, handle) is None


def test_a_row_that_is_missing_says_nothing_until_much_later(backend, slurm, make, seen, clock):
    request = make()
    handle = backend.submit(request)
    slurm.forget(handle)
    slurm.answers["sacct"] = Reply(0)
    assert seen(request, handle) is None
    clock.sleep(GONE_AFTER_S / 2)
    assert seen(request, handle) is None
    clock.sleep(GONE_AFTER_S)
    assert seen(request, handle).state is JobState.GONE


def test_while_accounting_is_down_only_the_outcome_ends_a_job_that_squeue_forgot(backend, slurm, make, seen, clock):
    with_outcome, without = make("with"), make("without")
    handles = [backend.submit(with_outcome), backend.submit(without)]
    slurm.forget(*handles)
    slurm.dbd_is_down = True
    write_outcome(with_outcome)
    clock.sleep(GONE_AFTER_S * 10)
    assert seen(with_outcome, handles[0]) == JobStatus(JobState.ENDED)
    clock.sleep(GONE_AFTER_S * 10)
    assert seen(without, handles[1]) is None


def test_without_accounting_squeue_and_the_folder_are_enough(backend, slurm, make, seen, clock):
    slurm.accounting = False
    finished, died = make("finished"), make("died")
    handles = [backend.submit(finished), backend.submit(died)]
    slurm.forget(*handles)
    write_outcome(finished)
    assert seen(finished, handles[0]) == JobStatus(JobState.ENDED)
    assert seen(died, handles[1]) is None
    clock.sleep(VISIBLE_WITHIN_S)
    assert seen(died, handles[1]).state is JobState.GONE


def test_a_controller_that_is_down_changes_nothing(backend, slurm, make):
    request = make()
    job = ref(request, backend.submit(request))
    slurm.ctld_is_down = True
    with pytest.raises(Unobservable, match="Unable to contact"):
        backend.poll([job])
    with pytest.raises(Unobservable):
        backend.cancel(job)


# ---- put back into the queue ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "reason"), [("NODE_FAIL", "NODE_FAIL"), ("PREEMPTED", "PREEMPTED"), ("REQUEUED", "PREEMPTED")]
)
def test_a_job_that_slurm_starts_anew_is_over_for_the_attempt(backend, slurm, make, seen, word, reason):
    request = make()
    handle = backend.submit(request)
    slurm.put_back(handle, word)
    assert seen(request, handle) == JobStatus(JobState.ENDED, reason=reason)


def test_why_it_was_put_back_is_waited_for(backend, slurm, make, seen, clock):
    request = make()
    handle = backend.submit(request)
    slurm.put_back(handle, "NODE_FAIL")
    slurm.dbd_is_down = True
    assert seen(request, handle) is None
    clock.sleep(VISIBLE_WITHIN_S)
    assert seen(request, handle) == JobStatus(JobState.ENDED, reason="NODE_FAIL")


def test_without_accounting_a_preempted_job_is_known_by_its_outcome(backend, slurm, make, seen):
    slurm.accounting = False
    request = make()
    handle = backend.submit(request)
    slurm.put_back(handle, "PREEMPTED")
    write_outcome(request)
    assert seen(request, handle) == JobStatus(JobState.ENDED, reason="PREEMPTED")


# ---- submitting and finding ----------------------------------------------------------------------------------------


def test_a_pool_without_a_partition_takes_the_one_of_its_name(backend, slurm, make):
    backend.submit(make("a", pool=H200))
    backend.submit(make("b", pool=Pool("elsewhere")))
    backend.submit(make("c", pool=Pool("h200", options={"partition": "h100"})))
    assert [job.options.get("partition") for job in slurm.jobs.values()] == ["h200", None, "h100"]


def test_a_request_that_may_be_under_way_is_not_taken_for_lost(backend, slurm, make, clock):
    request = make()
    slurm.answers["sbatch"] = Reply(1, err="sbatch: error: Batch job submission failed: Socket timed out")
    with pytest.raises(SubmitUncertain):
        backend.submit(request)
    with pytest.raises(Unobservable, match="under way"):
        backend.find(request)
    clock.sleep(60)
    assert backend.find(request) is None


def test_a_job_that_ended_long_ago_is_found_in_accounting(backend, slurm, make, clock):
    request = make()
    slurm.loses_next_reply = True
    with pytest.raises(SubmitUncertain):
        backend.submit(request)
    (id_,) = slurm.jobs
    slurm.end(id_, "COMPLETED")
    slurm.forget(id_)
    clock.sleep(86400)
    assert backend.find(request) == id_
    slurm.dbd_is_down = True
    with pytest.raises(Unobservable):
        backend.find(request)


def test_without_accounting_it_is_found_by_the_word_that_it_left(backend, slurm, make, clock):
    slurm.accounting = False
    request = make()
    backend.submit(request)
    (request.attempt_dir / STARTED).write_text("1")
    slurm.forget("1")
    clock.sleep(86400)
    assert backend.find(request) == "1"


def test_a_refusal_for_want_of_room_is_no_failure(backend, slurm, make):
    slurm.room = 0
    with pytest.raises(Deferred):
        backend.submit(make())


# ---- arrays --------------------------------------------------------------------------------------------------------


def test_requests_of_one_shape_go_out_as_one_array(backend, slurm, make):
    requests = [make(f"r{i}") for i in range(5)]
    handles = backend.submit_many(requests)
    assert [handles[request.token] for request in requests] == [f"1_{i}" for i in range(5)]
    assert len(slurm.asked("sbatch")) == 1
    slurm.calls.clear()
    assert [backend.find(request) for request in requests] == [f"1_{i}" for i in range(5)]
    assert len(slurm.asked("squeue")) == 1


def test_arrays_are_no_larger_than_the_cluster_allows_and_shapes_are_kept_apart(slurm, clock, make):
    slurm.max_array_size = 3
    backend = SlurmBackend(slurm, clock)
    requests = [make(f"r{i}") for i in range(5)] + [make("other", resources=Resources(gpus=1))]
    backend.submit_many(requests)
    assert list(slurm.jobs) == ["1_0", "1_1", "2_0", "2_1", "3", "4"]


def test_of_an_array_without_room_a_part_goes(backend, slurm, make):
    slurm.room = 5
    replies = backend.submit_many([make(f"r{i}") for i in range(8)])
    assert sum(isinstance(reply, str) for reply in replies.values()) == 5
    assert {type(reply) for reply in replies.values()} == {str, Deferred}


def test_every_attempt_of_a_refused_array_learns_why(backend, slurm, make):
    slurm.answers["sbatch"] = Reply(1, err="sbatch: error: invalid partition specified: nope")
    replies = backend.submit_many([make("a"), make("b")])
    assert {type(reply) for reply in replies.values()} == {BackendError}
    assert all("invalid partition" in str(reply) for reply in replies.values())


def test_a_task_of_a_lost_array_is_adopted_by_its_own_attempt(backend, slurm, make):
    slurm.loses_next_reply = True
    requests = [make(f"r{i}") for i in range(3)]
    replies = backend.submit_many(requests)
    assert {type(reply) for reply in replies.values()} == {SubmitUncertain}
    assert [SlurmBackend(slurm).find(request) for request in requests] == ["1_0", "1_1", "1_2"]


# ---- the cluster ---------------------------------------------------------------------------------------------------


def test_it_is_loaded_by_its_name():
    assert isinstance(load("slurm"), SlurmBackend)
    assert isinstance(load("slurm"), ArrayBackend)


def test_partitions_with_gpus_are_pools(backend):
    assert [(pool.name, pool.gpus, pool.options) for pool in backend.pools()] == [
        ("h100", 8, {"partition": "h100"}),
        ("h200", 8, {"partition": "h200"}),
    ]


def test_a_machine_without_slurm_has_no_pools(slurm):
    slurm.answers["sinfo"] = Reply(127, err="cannot run sinfo")
    assert SlurmBackend(slurm).pools() == []


def test_cancelling_what_ended_or_never_was_is_no_error(backend, slurm, make):
    request = make()
    handle = backend.submit(request)
    backend.cancel(ref(request, handle))
    assert slurm.jobs[handle].state == "CANCELLED"
    slurm.forget(handle)
    backend.cancel(ref(request, handle))
    backend.cancel(ref(request, "no handle; rm -rf"))
    assert slurm.asked("scancel") == [["scancel", handle]] * 2
