from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import AttemptState, PointState
from orchestrator.plan import Limits
from orchestrator.waiting import Waiting, waiting

NOW = 1_000.0
LIMITS = Limits(max_parallel=2, gpus_per_attempt=8, gpu_hours=10.0, time_limit_s=3600.0)


def point(index: int, state: PointState, **more: object) -> PointRow:
    row = PointRow("s", f"p{index}", index, f"point-{index}", {}, {}, (), "0" * 64, state)
    return replace(row, **more)  # type: ignore[arg-type]


def attempt(index: int, state: AttemptState, **more: object) -> AttemptRow:
    row = AttemptRow("s", f"p{index}", 1, f"t{index}", f"job-{index}", "h100", state, NOW - 60)
    return replace(row, **more)  # type: ignore[arg-type]


def only(found: tuple[Waiting, ...]) -> str:
    [group] = found
    return group.why


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (attempt(0, AttemptState.CREATED), "being submitted"),
        (
            attempt(0, AttemptState.CREATED, deferrals=3, not_before=NOW + 25),
            "the backend had no room 3 times; asked again in 30 s",
        ),
        (attempt(0, AttemptState.UNCERTAIN), "it is not known whether the backend took it; looked up by name"),
        (attempt(0, AttemptState.SUBMITTED), "queued"),
        (attempt(0, AttemptState.QUEUED), "queued: Resources"),
        (attempt(0, AttemptState.ENDED), "over, being judged"),
    ],
)
def test_an_active_point_that_does_not_run_says_what_it_waits_for(row: AttemptRow, why: str) -> None:
    said = {"t0": "Resources"} if row.state is AttemptState.QUEUED else {}
    assert only(waiting(View.of([point(0, PointState.ACTIVE)], [row]), LIMITS, NOW, said)) == why


def test_what_runs_or_is_settled_does_not_wait() -> None:
    states = [PointState.ACTIVE, PointState.SUCCEEDED, PointState.FAILED, PointState.SKIPPED, PointState.BLOCKED]
    view = View.of([point(n, state) for n, state in enumerate(states)], [attempt(0, AttemptState.RUNNING)])
    assert waiting(view, LIMITS, NOW) == ()


def test_points_that_wait_for_the_same_are_one_group_in_the_sweep_files_order() -> None:
    points = [point(0, PointState.ACTIVE), point(1, PointState.ACTIVE), *(point(n, PointState.READY) for n in (2, 3))]
    view = View.of(points, [attempt(n, AttemptState.RUNNING) for n in (0, 1)])
    assert waiting(view, LIMITS, NOW) == (Waiting("2 run, budget.max_parallel is 2", ("point-2", "point-3")),)


def test_a_retry_says_the_policys_reason_and_when_it_comes() -> None:
    again = point(0, PointState.READY, reason="hang: tried again", not_before=NOW + 300)
    view = View.of([again], [attempt(0, AttemptState.JUDGED)])
    assert only(waiting(view, LIMITS, NOW)) == "hang: tried again; tried again in 5 min"
    assert only(waiting(view, LIMITS, NOW + 400)) == "hang: tried again; next to start"


def test_a_point_that_the_budget_does_not_cover_now_says_so() -> None:
    running = attempt(0, AttemptState.RUNNING, started_at=NOW)
    view = View.of([point(0, PointState.ACTIVE), point(1, PointState.PLANNED)], [running])
    assert "2.0 GPU-hours of the budget are not spoken for, an attempt may take 8.0" in only(waiting(view, LIMITS, NOW))
    assert only(waiting(view, replace(LIMITS, gpu_hours=None), NOW)) == "next to start"
