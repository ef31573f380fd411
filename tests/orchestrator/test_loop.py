"""The loop on a cluster that does what it is told to, and an orchestrator that may die between any two of its actions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.backends.base import JobRequest, JobState
from orchestrator.backends.fake import Play, Reply, always
from orchestrator.backends.fake_files import fail
from orchestrator.ledger import AttemptRow, PointRow
from orchestrator.model import AttemptState, PointState, Verdict
from orchestrator.spec_model import SweepSpec
from tests.orchestrator.driving import Died, Rehearsal

CUDA_OOM = (
    "(WorkerDict pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.35 GiB. "
    "GPU 0 has a total capacity of 79.10 GiB of which 1.02 GiB is free.\n"
)
RUNS_ON = ((0.0, JobState.QUEUED), (0.5, JobState.RUNNING))


def test_a_sweep_runs_to_its_end_and_every_point_is_logged_as_settled(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play()), points=3)
    view = rehearsal.drive()
    assert {point.state for point in view.points} == {PointState.SUCCEEDED}
    assert set(rehearsal.logged.states.values()) == {"succeeded"}
    assert list(rehearsal.cluster.submissions.values()) == [1, 1, 1]


def test_no_more_points_are_active_than_allowed(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play()), points=5)
    active: list[int] = []
    rehearsal.drive(observe=lambda view: active.append(sum(p.state is PointState.ACTIVE for p in view.points)))
    assert max(active) == 2


@pytest.mark.parametrize("reply", [Reply.ACCEPT, Reply.LOSE_REPLY, Reply.LOSE_REQUEST])
def test_dying_between_any_two_actions_never_runs_a_point_twice(tmp_path: Path, reply: Reply) -> None:
    """Every single call into the store and the backend is a place to die, before it and after it."""

    def script(_request: JobRequest, earlier: int) -> Play:
        return Play(reply=reply if earlier == 0 else Reply.ACCEPT)

    deaths = 0
    for calls in range(1_000):
        rehearsal = Rehearsal(tmp_path / str(calls), script, points=1)
        try:
            rehearsal.drive(die_after=calls)
            break
        except Died:
            deaths += 1
        view = rehearsal.drive()
        (point,) = view.points
        (attempt,) = view.history(point)
        assert (point.state, attempt.verdict) == (PointState.SUCCEEDED, Verdict.COMPLETED), f"after {calls} calls"
        claimed = [job for job in rehearsal.cluster.jobs.values() if job.claimed]
        assert len(claimed) == 1, f"after {calls} calls"
        assert rehearsal.logged.states == {point.id: "succeeded"}
    assert deaths > 40, "the sweep made too few calls for this test to mean anything"


def test_a_gpu_out_of_memory_on_the_small_pool_succeeds_on_the_large_one(tmp_path: Path) -> None:
    def script(request: JobRequest, _earlier: int) -> Play:
        assert request.pool is not None
        return Play(on_end=fail(1, log=CUDA_OOM)) if request.pool.name == "h100" else Play()

    view = Rehearsal(tmp_path, script, points=1).drive()
    (point,) = view.points
    first, second = view.history(point)
    assert (first.pool, first.verdict, second.pool) == ("h100", Verdict.GPU_OOM, "h200")
    assert point.state is PointState.SUCCEEDED
    assert "oom_recovered" in {anomaly.code for anomaly in second.anomalies}


def test_a_gpu_out_of_memory_on_every_pool_fails_with_advice(tmp_path: Path) -> None:
    view = Rehearsal(tmp_path, always(Play(on_end=fail(1, log=CUDA_OOM))), points=1).drive()
    (point,) = view.points
    assert point.state is PointState.FAILED
    assert [attempt.pool for attempt in view.history(point)] == ["h100", "h200"]
    assert "h200 is the largest pool" in (point.reason or "")


def test_a_refused_submission_fails_the_point_in_the_backends_own_words(tmp_path: Path) -> None:
    view = Rehearsal(tmp_path, always(Play(reply=Reply.REJECT)), points=1).drive()
    assert view.points[0].state is PointState.FAILED
    assert "refused" in (view.points[0].reason or "")


def test_a_cluster_that_does_not_answer_changes_no_state(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play()), points=1)
    ticks = 0

    def observe(_view: object) -> None:
        nonlocal ticks
        ticks += 1
        rehearsal.cluster.unreachable = 8 < ticks < 40

    view = rehearsal.drive(observe=observe)
    assert view.points[0].state is PointState.SUCCEEDED
    assert len(view.history(view.points[0])) == 1
    assert any("does not answer" in warning for warning in rehearsal.warnings)


def test_a_requested_cancel_ends_the_job_and_the_point(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play(timeline=RUNS_ON)), points=1)

    def observe(_view: object) -> None:
        for attempt in rehearsal.store.attempts("s"):
            if attempt.state is AttemptState.RUNNING and not attempt.cancel_requested:
                rehearsal.store.cancel_sweep("s")

    view = rehearsal.drive(observe=observe)
    assert view.points[0].state is PointState.CANCELLED


def test_a_job_that_fails_while_it_is_cancelled_is_not_tried_again(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play(on_end=fail(1, log=CUDA_OOM))), points=1)

    def observe(_view: object) -> None:
        if any(attempt.state is AttemptState.COLLECTED for attempt in rehearsal.store.attempts("s")):
            rehearsal.store.cancel_sweep("s")

    (point,) = rehearsal.drive(observe=observe).points
    assert point.state is PointState.CANCELLED
    assert len(rehearsal.store.attempts("s")) == 1


def test_an_attempt_that_was_cancelled_before_its_submission_starts_no_job(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play()), points=1)

    def observe(_view: object) -> None:
        if any(attempt.state is AttemptState.CREATED for attempt in rehearsal.store.attempts("s")):
            rehearsal.store.cancel_sweep("s")

    (point,) = rehearsal.drive(observe=observe).points
    assert point.state is PointState.CANCELLED
    assert not rehearsal.cluster.submissions


def test_the_last_state_is_logged_although_logging_failed_before(tmp_path: Path) -> None:
    """A point that settles in the very tick in which an older state of it is logged at last."""
    rehearsal = Rehearsal(tmp_path, always(Play()), points=1)
    log, failed = rehearsal.logged.log, 0

    def late(point: PointRow, history: Sequence[AttemptRow]) -> None:
        nonlocal failed
        if history[-1].state is AttemptState.COLLECTED:
            failed += 1
            raise RuntimeError("not now")
        log(point, history)

    def observe(_view: object) -> None:
        for attempt in rehearsal.store.attempts("s"):
            if attempt.state is AttemptState.ENDED:
                rehearsal.store.mark_unlogged("s", attempt.point)

    rehearsal.logged.log = late  # type: ignore[method-assign]
    rehearsal.drive(observe=observe)
    assert failed == 1
    assert set(rehearsal.logged.states.values()) == {"succeeded"}


def test_a_used_up_budget_stops_what_waits(tmp_path: Path) -> None:
    spec = SweepSpec.model_validate({"name": "s", "budget": {"max_parallel": 1, "gpu_hours": 0.001}})
    view = Rehearsal(tmp_path, always(Play()), points=3, spec=spec).drive()
    assert [point.state for point in view.points] == [PointState.SUCCEEDED, PointState.BLOCKED, PointState.BLOCKED]


def test_a_sink_that_fails_is_a_warning_and_never_stops_the_sweep(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play()), points=1)

    def broken(*_arguments: object) -> None:
        raise RuntimeError("no such server")

    rehearsal.logged.log = broken  # type: ignore[method-assign]
    assert rehearsal.drive().points[0].state is PointState.SUCCEEDED
    assert rehearsal.warnings == ["point-0: logging failed: no such server"]
