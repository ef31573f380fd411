"""Attempts judged again: what changes, what stays, and that history is only added to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.backends.fake import Play, always
from orchestrator.backends.fake_files import fail, succeed
from orchestrator.model import PointState, Verdict
from orchestrator.reclassify import Reclassified, reclassify
from orchestrator.spec_model import SweepSpec
from tests.orchestrator.driving import Rehearsal

ODD = "FABRIC MANAGER LOST SWITCH 3 on dgx-7\n"
OWN = {
    "code": "lost_switch",
    "role": "root",
    "verdict": "node_failure",
    "literals": ["FABRIC MANAGER"],
    "regex": "FABRIC MANAGER LOST SWITCH",
    "match": [ODD.strip()],
    "reject": ["FABRIC MANAGER ready"],
}
PLAIN = SweepSpec.model_validate({"name": "s", "retry": {"budgets": {"unknown": 0}}})
LEARNED = PLAIN.model_copy(
    update={"triage": SweepSpec.model_validate({"name": "s", "triage": {"patterns": [OWN]}}).triage}
)


@pytest.fixture
def failed(tmp_path: Path) -> Rehearsal:
    """One point that died of something that nobody knew."""
    rehearsal = Rehearsal(tmp_path, always(Play(on_end=fail(1, log="loading\n" + ODD))), points=1, spec=PLAIN)
    rehearsal.drive()
    return rehearsal


def again(rehearsal: Rehearsal, spec: SweepSpec = LEARNED, *, write: bool = True) -> Reclassified:
    return reclassify(rehearsal.store, rehearsal.paths, "s", spec, write=write)


def test_a_new_pattern_gives_an_old_attempt_its_cause(failed: Rehearsal) -> None:
    (change,) = again(failed).changes
    assert (change.attempt.verdict, change.after.judgement.verdict) == (Verdict.UNKNOWN, Verdict.NODE_FAILURE)
    (attempt,) = failed.store.attempts("s")
    assert attempt.verdict is Verdict.NODE_FAILURE
    assert "FABRIC MANAGER LOST SWITCH 3" in (attempt.reason or "")
    assert attempt.facts[-1].startswith("console.log:2: ")
    (point,) = failed.store.points("s")
    assert point.state is PointState.FAILED
    assert point.reason == attempt.reason
    assert point.unlogged, "the sinks get it again"


def test_history_is_added_to_and_never_rewritten(failed: Rehearsal) -> None:
    before = failed.store.events("s")
    again(failed)
    after = failed.store.events("s")
    assert after[: len(before)] == before
    (added,) = after[len(before) :]
    assert "judged again: unknown -> node_failure" in (added.detail or "")
    assert "before: ended with exit code 1" in (added.detail or "")


def test_the_second_time_nothing_changes(failed: Rehearsal) -> None:
    again(failed)
    assert again(failed) == Reclassified(judged=1, changes=())


def test_a_dry_run_says_the_same_and_writes_nothing(failed: Rehearsal) -> None:
    events = failed.store.events("s")
    (change,) = again(failed, write=False).changes
    assert change.after.judgement.verdict is Verdict.NODE_FAILURE
    assert failed.store.events("s") == events
    assert failed.store.attempts("s")[0].verdict is Verdict.UNKNOWN


def test_without_its_log_an_attempt_stays_as_it_was(failed: Rehearsal) -> None:
    shutil.rmtree(failed.root / "sweeps")
    assert again(failed).changes == ()


def test_a_completed_run_whose_files_were_cleaned_away_stays_completed(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play(on_end=succeed)), points=1, spec=PLAIN)
    rehearsal.drive()
    for file in tmp_path.rglob("*.npz"):
        file.unlink()
    assert again(rehearsal).changes == ()
    assert rehearsal.store.points("s")[0].state is PointState.SUCCEEDED


def test_an_attempt_that_somebody_judged_meanwhile_is_left_to_them(failed: Rehearsal) -> None:
    (attempt,) = failed.store.attempts("s")
    assert failed.store.rejudge(attempt, "theirs", verdict="gpu_oom", reason="theirs")
    assert not failed.store.rejudge(attempt, "ours", verdict="host_oom", reason="ours")
    assert failed.store.attempts("s")[0].verdict is Verdict.GPU_OOM


def judged_wrongly(rehearsal: Rehearsal, verdict: str, to: PointState) -> None:
    """As an older program would have left it."""
    (attempt,), (point,) = rehearsal.store.attempts("s"), rehearsal.store.points("s")
    assert rehearsal.store.rejudge(attempt, "an older program", verdict=verdict, reason="?")
    assert rehearsal.store.move_point(point, to)


def test_a_failed_point_that_had_completed_succeeds(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play(on_end=succeed)), points=1, spec=PLAIN)
    rehearsal.drive()
    judged_wrongly(rehearsal, "unknown", PointState.FAILED)
    (change,) = again(rehearsal).changes
    assert change.settled is PointState.SUCCEEDED
    assert rehearsal.store.points("s")[0].state is PointState.SUCCEEDED


def test_a_point_that_succeeded_by_mistake_fails(failed: Rehearsal) -> None:
    judged_wrongly(failed, "completed", PointState.SUCCEEDED)
    (change,) = again(failed).changes
    assert change.settled is PointState.FAILED
    (point,) = failed.store.points("s")
    assert point.state is PointState.FAILED
    assert (point.reason or "").startswith("judged again: the node failed")
