"""The planner as a pure function: which state leads to which action, and what it never does."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given

from orchestrator.ledger import AttemptRow, PointRow
from orchestrator.model import AttemptState, PointState, Verdict
from orchestrator.plan import (
    Block,
    Collect,
    Judge,
    Limits,
    Log,
    Poll,
    Ready,
    Recover,
    Settle,
    Start,
    Submit,
    View,
    plan,
)

NOW = 1_000.0


def point(index: int, state: PointState, *, unlogged: bool = False) -> PointRow:
    return PointRow("s", f"p{index}", index, f"point-{index}", {}, {}, (), "0" * 64, state, unlogged=unlogged)


def attempt(index: int, state: AttemptState, *, n: int = 1, **more: object) -> AttemptRow:
    return AttemptRow("s", f"p{index}", n, "token", f"job-{index}-{n}", None, state, NOW, **more)  # type: ignore[arg-type]


def kinds(actions: Sequence[object]) -> list[str]:
    return [type(action).__name__ for action in actions]


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (AttemptState.CREATED, Submit),
        (AttemptState.SUBMITTING, Recover),
        (AttemptState.UNCERTAIN, Recover),
        (AttemptState.SUBMITTED, Poll),
        (AttemptState.QUEUED, Poll),
        (AttemptState.RUNNING, Poll),
        (AttemptState.ENDED, Collect),
        (AttemptState.COLLECTED, Judge),
        (AttemptState.JUDGED, Settle),
    ],
)
def test_every_state_of_an_active_point_has_one_next_action(state: AttemptState, action: type) -> None:
    view = View.of([point(0, PointState.ACTIVE)], [attempt(0, state)])
    assert [type(found) for found in plan(view, Limits(max_parallel=1), NOW)] == [action]


def test_all_live_attempts_are_polled_in_one_call() -> None:
    view = View.of(
        [point(index, PointState.ACTIVE) for index in range(5)],
        [attempt(index, AttemptState.RUNNING) for index in range(5)],
    )
    (poll,) = plan(view, Limits(max_parallel=9), NOW)
    assert isinstance(poll, Poll)
    assert len(poll.attempts) == 5


def test_points_start_in_the_order_of_the_file_and_no_more_than_allowed() -> None:
    view = View.of(
        [point(0, PointState.ACTIVE), *(point(index, PointState.READY) for index in (1, 2, 3))],
        [attempt(0, AttemptState.RUNNING)],
    )
    started = [action.point.id for action in plan(view, Limits(max_parallel=3), NOW) if isinstance(action, Start)]
    assert started == ["p1", "p2"]


def test_a_used_up_budget_blocks_what_waits_and_leaves_what_runs() -> None:
    running = attempt(0, AttemptState.RUNNING, started_at=NOW - 3600)
    view = View.of([point(0, PointState.ACTIVE), point(1, PointState.READY)], [running])
    actions = plan(view, Limits(max_parallel=2, gpus_per_attempt=8, gpu_hours=8.0), NOW)
    assert kinds(actions) == ["Poll", "Block"]
    assert isinstance(actions[1], Block)
    assert "8 GPU-hours" in actions[1].reason


def died(index: int, fingerprint: str) -> AttemptRow:
    return attempt(index, AttemptState.JUDGED, verdict=Verdict.CODE_ERROR, fingerprint=fingerprint, reason="KeyError")


def test_three_points_with_one_error_and_no_success_stop_the_sweep() -> None:
    failed = [point(index, PointState.FAILED) for index in range(3)]
    waiting = point(3, PointState.READY)
    view = View.of([*failed, waiting], [died(index, "same") for index in range(3)])
    assert kinds(plan(view, Limits(max_parallel=1), NOW)) == ["Block"]
    other = View.of([*failed, waiting], [died(0, "same"), died(1, "same"), died(2, "other")])
    assert kinds(plan(other, Limits(max_parallel=1), NOW)) == ["Start"]
    lucky = View.of([*failed, point(4, PointState.SUCCEEDED), waiting], [died(index, "same") for index in range(3)])
    assert kinds(plan(lucky, Limits(max_parallel=1), NOW)) == ["Start"]


def test_a_changed_point_is_logged_once_it_has_an_attempt() -> None:
    untouched = View.of([point(0, PointState.READY, unlogged=True)], [])
    assert Log not in {type(action) for action in plan(untouched, Limits(max_parallel=0), NOW)}
    settled = View.of([point(0, PointState.SUCCEEDED, unlogged=True)], [attempt(0, AttemptState.JUDGED)])
    assert kinds(plan(settled, Limits(max_parallel=0), NOW)) == ["Log"]


states = st.sampled_from(list(PointState))


@given(
    st.lists(st.tuples(states, st.sampled_from(list(AttemptState))), max_size=12),
    st.integers(0, 5),
    st.floats(0, 100) | st.none(),
)
def test_a_plan_never_touches_a_settled_point_and_never_exceeds_the_slots(
    rows: list[tuple[PointState, AttemptState]], slots: int, hours: float | None
) -> None:
    view = View.of(
        [point(index, state) for index, (state, _) in enumerate(rows)],
        [attempt(index, state) for index, (_, state) in enumerate(rows)],
    )
    actions = plan(view, Limits(max_parallel=slots, gpus_per_attempt=8, gpu_hours=hours), NOW)
    settled = {point.id for point in view.points if point.state.is_terminal}
    starts = [action for action in actions if isinstance(action, Start)]
    assert not settled & {action.point.id for action in actions if isinstance(action, Start | Ready | Block | Settle)}
    active = sum(point.state is PointState.ACTIVE for point in view.points)
    assert not starts or active + len(starts) <= slots
