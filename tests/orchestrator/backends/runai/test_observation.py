"""From phases and folders to states, and what may never be concluded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.backends.base import JobState, JobStatus
from orchestrator.backends.runai.observation import PATIENCE, Doubt, Folder, Seen, judge, reason
from orchestrator.backends.runai.phases import STAGES, Stage, stage
from trainer_ext.records import Outcome

LONG = 10_000.0
NOTHING = Folder(claimed=False, outcome=None)
BEGUN = Folder(claimed=True, outcome=None, heartbeat_at=5.0)


def outcome(stop_reason: str | None = None, exit_code: int | None = 0) -> Folder:
    said = Outcome(
        token="t", exit_code=exit_code, signal=None, started_at=0, ended_at=1, phase="run", stop_reason=stop_reason
    )
    return Folder(claimed=True, outcome=said, heartbeat_at=5.0)


def at(phase: str | None, folder: Folder = NOTHING, same_for_s: float = 0.0, **more: Any) -> JobStatus | Doubt | None:
    row = None if phase is None else {"id": "1", "phase": phase, **more}
    return judge(Seen(row, folder, same_for_s), PATIENCE)


folders = st.builds(
    Folder,
    claimed=st.booleans(),
    outcome=st.none()
    | st.builds(
        Outcome,
        token=st.just("t"),
        exit_code=st.none() | st.integers(0, 255),
        signal=st.none(),
        started_at=st.just(0.0),
        ended_at=st.just(1.0),
        phase=st.just("run"),
        stop_reason=st.sampled_from([None, "terminated", "hang", "time_limit"]),
    ),
    heartbeat_at=st.none() | st.floats(0, 1e9),
)
ages = st.floats(0, 1e6)


@given(phase=st.text() | st.none() | st.integers(), folder=folders, same_for_s=ages)
def test_a_phase_that_nobody_knows_ends_nothing_by_itself(phase, folder, same_for_s):
    if phase in STAGES:
        return
    found = judge(Seen({"id": "1", "phase": phase}, folder, same_for_s), PATIENCE)
    ended = isinstance(found, JobStatus) and found.state in (JobState.ENDED, JobState.GONE)
    assert not ended or folder.outcome is not None


@given(phase=st.sampled_from(sorted(STAGES)), folder=folders, same_for_s=ages)
def test_only_completed_and_failed_end_an_attempt_that_nobody_has_begun(phase, folder, same_for_s):
    untouched = Folder(claimed=False, outcome=None, heartbeat_at=folder.heartbeat_at)
    found = at(phase, untouched, same_for_s)
    if isinstance(found, JobStatus) and found.state is JobState.ENDED:
        assert phase in ("Completed", "Failed")


@given(phase=st.sampled_from(sorted(STAGES)), same_for_s=ages)
def test_no_end_is_believed_while_the_folder_may_still_be_on_its_way(phase, same_for_s):
    found = at(phase, BEGUN, min(same_for_s, PATIENCE.visible_s - 1))
    assert not (isinstance(found, JobStatus) and found.state in (JobState.ENDED, JobState.GONE))


@given(phase=st.sampled_from(sorted(STAGES)), folder=folders, same_for_s=ages)
def test_gone_is_never_said_of_what_is_listed(phase, folder, same_for_s):
    found = at(phase, folder, same_for_s)
    assert not (isinstance(found, JobStatus) and found.state is JobState.GONE)


def test_the_terminal_phases_are_two() -> None:
    assert {phase for phase, where in STAGES.items() if where is Stage.ENDED} == {"Completed", "Failed"}
    assert stage("Unknown") is stage("Preempting") is stage(None) is Stage.UNKNOWN


@pytest.mark.parametrize("phase", ["Creating", "Initializing", "Pending", "Resuming"])
def test_what_waits_is_queued_with_its_reason(phase: str) -> None:
    found = at(phase, phaseMessage="Not enough resources", phaseReason="OverLimit")
    assert found == JobStatus(JobState.QUEUED, reason="OverLimit; Not enough resources")


@pytest.mark.parametrize("phase", ["Running", "Updating", "Degraded", "Stopping", "Deleting", "Terminating"])
def test_what_has_containers_is_running(phase: str) -> None:
    assert at(phase, BEGUN) == JobStatus(JobState.RUNNING)


@pytest.mark.parametrize("phase", ["Completed", "Failed"])
def test_an_end_with_an_outcome_is_over_and_its_word_is_evidence_beside_the_folder(phase: str) -> None:
    assert at(phase, outcome(exit_code=1)) == JobStatus(JobState.ENDED, reason=phase.upper())


def test_an_end_without_an_outcome_is_believed_when_none_can_be_on_its_way_any_more() -> None:
    assert at("Failed") is None
    assert at("Failed", BEGUN, PATIENCE.visible_s - 1) is None
    assert at("Failed", BEGUN, PATIENCE.visible_s) == Doubt(JobStatus(JobState.ENDED, reason="FAILED"))
    assert at("Completed", NOTHING, PATIENCE.visible_s) == JobStatus(JobState.ENDED, reason="COMPLETED")


def test_an_end_after_a_request_to_stop_may_be_a_preemption() -> None:
    assert at("Completed", outcome("terminated")) == Doubt(JobStatus(JobState.ENDED, reason="COMPLETED"))


def test_a_second_start_that_found_the_claim_taken_has_ended_and_the_first_may_have_been_preempted() -> None:
    assert at("Completed", BEGUN, LONG) == Doubt(JobStatus(JobState.ENDED, reason="COMPLETED"))


# ---- preemption ------------------------------------------------------------------------------------------------------


def test_waiting_again_after_being_told_to_stop_is_a_preemption() -> None:
    assert at("Pending", outcome("terminated")) == JobStatus(JobState.ENDED, reason="PREEMPTED")


def test_a_phase_that_is_late_is_no_preemption() -> None:
    assert at("Initializing", BEGUN, 5.0) == JobStatus(JobState.RUNNING)
    assert at("Pending", outcome(exit_code=1), 5.0) == JobStatus(JobState.RUNNING)


def test_a_job_that_failed_by_itself_and_waits_again_is_no_preemption() -> None:
    assert at("Pending", outcome(exit_code=1), LONG) == JobStatus(JobState.ENDED)


def test_waiting_again_without_a_sign_of_life_is_asked_about() -> None:
    assert at("Pending", BEGUN, LONG) == Doubt(JobStatus(JobState.ENDED, reason="NODE_FAIL"))


# ---- stopped and gone ------------------------------------------------------------------------------------------------


def test_stopped_before_it_began_waits_and_says_so() -> None:
    found = at("Stopped", phaseMessage="idle too long")
    assert isinstance(found, JobStatus)
    assert (found.state, found.is_stuck) == (JobState.QUEUED, True)
    assert "idle too long" in (found.reason or "")


def test_stopped_by_somebody_is_cancelled_and_no_failure() -> None:
    found = at("Stopped", outcome("terminated"))
    assert found == JobStatus(JobState.ENDED, reason="CANCELLED by a stop in Run:ai")
    assert at("Stopped", outcome(exit_code=1)) == JobStatus(JobState.ENDED), "it had ended before"


def test_deleted_by_somebody_is_cancelled_and_deleted_after_its_time_is_what_the_folder_says() -> None:
    when = "2026-01-01T00:00:00Z"
    cancelled = JobStatus(JobState.ENDED, reason="CANCELLED by a deletion in Run:ai")
    assert at("Deleting", NOTHING, deletedAt=when) == cancelled
    assert at("Deleting", outcome("terminated"), deletedAt=when) == cancelled
    assert at("Completed", outcome(exit_code=1), deletedAt=when) == JobStatus(JobState.ENDED)


def test_what_run_ai_never_heard_of_is_gone() -> None:
    assert at(None) is None, "what was just made may be shown later"
    assert at(None, NOTHING, PATIENCE.visible_s) == JobStatus(JobState.GONE)
    assert at(None, BEGUN) is None, "its outcome may be on its way"
    assert at(None, BEGUN, LONG) == JobStatus(JobState.GONE)
    assert at(None, outcome()) == JobStatus(JobState.ENDED)


def test_a_job_that_ended_without_a_word_and_was_deleted_after_its_time_was_not_cancelled() -> None:
    found = at("Failed", BEGUN, LONG, deletedAt="2026-01-01T00:00:00Z")
    assert found == JobStatus(JobState.ENDED, reason="FAILED")


@pytest.mark.parametrize("phase", ["Running", "Degraded", "Unknown", "Deleting", "SomethingNew"])
def test_a_workload_that_is_never_called_ended_ends_with_its_outcome(phase: str) -> None:
    assert at(phase, outcome(), PATIENCE.completing_s - 1) != JobStatus(JobState.ENDED)
    assert at(phase, outcome(), PATIENCE.completing_s) == JobStatus(JobState.ENDED)


# ---- reasons ---------------------------------------------------------------------------------------------------------


def test_a_reason_joins_what_the_api_says_once() -> None:
    row = {
        "phaseMessage": "waiting",
        "conditions": [
            {"type": "Scheduled", "status": "False", "message": "no nodes"},
            {"type": "Ready", "status": "True", "message": "fine"},
            {"type": "Other", "status": "False", "message": "waiting"},
        ],
        "pendingSchedulingMessages": [{"nodePool": "h100", "reason": "x", "userMessage": "over quota"}],
    }
    assert reason(row) == "waiting; no nodes; h100: over quota"
    assert reason({}) is None
    assert len(reason({"phaseMessage": "x" * 5000}) or "") == 300


def test_a_reason_is_fit_for_a_terminal_and_a_database() -> None:
    assert reason({"phaseMessage": "a\x1b[31m red\n\ud800 line"}) == "a [31m red ? line"
