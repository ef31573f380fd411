"""Why a point came to where it is, from a sweep that was really driven."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.backends.base import JobRequest
from orchestrator.backends.fake import Play, always
from orchestrator.backends.fake_files import fail
from orchestrator.errors import UsageError
from orchestrator.explanation import Explanation, explain_point
from orchestrator.model import AttemptState, PointState
from tests.orchestrator.driving import Rehearsal

CUDA_OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.35 GiB.\n"


def smaller_pool_fails(request: JobRequest, _earlier: int) -> Play:
    assert request.pool is not None
    return Play(on_end=fail(1, log=CUDA_OOM)) if request.pool.name == "h100" else Play()


def explained(rehearsal: Rehearsal, number: int | None = None) -> Explanation:
    (point,) = rehearsal.store.points("s")
    return explain_point(rehearsal.store, rehearsal.paths, point, number)


def test_every_attempt_is_told_with_what_was_decided_after_it(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, smaller_pool_fails, points=1)
    rehearsal.drive()
    found = explained(rehearsal)
    first, second = found.tried
    assert "moved from h100 to h200" in (first.decision or "")
    assert (second.decision or "").startswith("succeeded: all 2 steps done")
    assert (found.shown, found.advice) == (second.attempt, "nothing")
    assert found.judgement is not None
    assert not found.outdated


def test_an_earlier_attempt_can_be_asked_for(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, smaller_pool_fails, points=1)
    rehearsal.drive()
    found = explained(rehearsal, 1)
    assert found.facts[0].label == "decided by"
    assert "cuda_oom" in found.facts[0].text
    with pytest.raises(UsageError, match="has attempts 1, 2, not 3"):
        explained(rehearsal, 3)


def test_what_to_do_follows_from_the_last_verdict(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play(on_end=fail(1, log=CUDA_OOM))), points=1)
    rehearsal.drive()
    assert explained(rehearsal).advice.startswith("take a pool with more memory")


def test_points_that_a_common_error_blocked_are_not_freed_by_sweeping_again_alone(tmp_path: Path) -> None:
    error = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: x\n'
    rehearsal = Rehearsal(tmp_path, always(Play(on_end=fail(1, log=error))), points=8)
    rehearsal.drive()
    blocked = next(point for point in rehearsal.store.points("s") if point.state is PointState.BLOCKED)
    assert "`rerun` the points that failed" in explain_point(rehearsal.store, rehearsal.paths, blocked).advice


def test_an_attempt_that_runs_is_explained_by_what_is_there(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play()), points=1)
    seen: list[Explanation] = []

    def observe(_view: object) -> None:
        if any(attempt.state is AttemptState.RUNNING for attempt in rehearsal.store.attempts("s")):
            seen.append(explained(rehearsal))

    rehearsal.drive(observe=observe)
    assert seen
    assert ("end", "not yet") in [(fact.label, fact.text) for fact in seen[0].facts]
    assert seen[0].advice == "nothing: it is being worked on"


def test_a_point_that_never_ran_has_nothing_to_explain(tmp_path: Path) -> None:
    found = explained(Rehearsal(tmp_path, always(Play()), points=1))
    assert (found.tried, found.shown, found.facts) == ((), None, ())
    assert found.advice == "nothing: it has not been tried yet"
