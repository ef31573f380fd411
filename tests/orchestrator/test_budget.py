"""GPU-hours: what is used, what may still come, and that no start can exceed what was granted."""

from __future__ import annotations

import pytest

from orchestrator.budget import spent, worst_seconds
from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import AttemptState, Estimate, Forecast, PointState, Pool, Prediction
from orchestrator.plan import Block, Limits, Ready, Start, plan

HOUR = 3600.0
NOW = 100 * HOUR
LADDER = (Pool("h100", 8, 81_559),)


def point(index: int, state: PointState, seconds: float | None = None) -> PointRow:
    time = Forecast(seconds=Estimate(seconds, seconds / 2, 2 * seconds)) if seconds else Forecast()
    predicted = Prediction("job", on={"h100": time})
    return PointRow("s", f"p{index}", index, f"p{index}", {"x": index}, {}, (), "", state, predicted=predicted)


def attempt(index: int, state: AttemptState, began: float | None = None, ended: float | None = None) -> AttemptRow:
    return AttemptRow("s", f"p{index}", 1, "t", "j", "h100", state, NOW, started_at=began, ended_at=ended)


def limits(hours: float, *, parallel: int = 9, time: float | None = HOUR) -> Limits:
    return Limits(parallel, gpus_per_attempt=8, gpu_hours=hours, time_limit_s=time, ladder=LADDER)


def test_an_attempt_counts_from_its_start_to_its_end_or_to_now() -> None:
    points = [point(index, PointState.ACTIVE) for index in range(3)]
    view = View.of(
        points,
        [
            attempt(0, AttemptState.JUDGED, NOW - 3 * HOUR, NOW - HOUR),
            attempt(1, AttemptState.RUNNING, NOW - HOUR / 2),
            attempt(2, AttemptState.QUEUED),
        ],
    )
    money = spent(view, gpus=8, time_limit_s=HOUR, now=NOW)
    assert (money.used, money.ahead) == (pytest.approx(20), pytest.approx(4 + 8))


def test_the_worst_case_is_the_limit_else_the_upper_end_of_the_prediction() -> None:
    row = point(0, PointState.READY, 600.0)
    assert worst_seconds(row, "h100", 100.0) == 100.0
    assert worst_seconds(row, "h100", None) == 1200.0
    assert worst_seconds(row, "h200", None) is None


def test_a_point_waits_while_what_runs_might_use_up_the_rest() -> None:
    """16 GPU-hours: one attempt of 8 runs, another may start, a third has to wait for what the first leaves."""
    view = View.of(
        [point(0, PointState.ACTIVE), *(point(index, PointState.READY) for index in (1, 2))],
        [attempt(0, AttemptState.RUNNING, NOW)],
    )
    actions = plan(view, limits(16), NOW)
    assert [action.point.id for action in actions if isinstance(action, Start)] == ["p1"]
    assert not any(isinstance(action, Block) for action in actions)


def test_what_an_attempt_leaves_is_there_for_the_next() -> None:
    view = View.of(
        [point(0, PointState.SUCCEEDED), point(1, PointState.READY)],
        [attempt(0, AttemptState.JUDGED, NOW - HOUR / 2, NOW)],
    )
    assert any(isinstance(action, Start) for action in plan(view, limits(12), NOW))


def test_a_point_that_the_rest_cannot_cover_is_blocked_with_the_sums() -> None:
    view = View.of(
        [point(0, PointState.SUCCEEDED), point(1, PointState.READY), point(2, PointState.PLANNED)],
        [attempt(0, AttemptState.JUDGED, NOW - HOUR / 2, NOW)],
    )
    blocked = [action for action in plan(view, limits(11), NOW) if isinstance(action, Block)]
    assert [action.point.id for action in blocked] == ["p1", "p2"]
    assert blocked[0].reason == "of the budget of 11 GPU-hours 7.0 are left, and an attempt may take 8.0"


def test_without_a_time_limit_a_shorter_point_may_still_start() -> None:
    view = View.of([point(0, PointState.READY, 4 * HOUR), point(1, PointState.READY, HOUR / 4)], [])
    actions = plan(view, limits(8, time=None), NOW)
    assert [type(action) for action in actions] == [Block, Start]


def test_without_a_budget_nothing_is_ever_blocked() -> None:
    view = View.of([point(0, PointState.PLANNED), point(1, PointState.READY, 1e9)], [])
    free = Limits(9, gpus_per_attempt=8, ladder=LADDER)
    assert [type(action) for action in plan(view, free, NOW)] == [Ready, Start]
