"""Phases add up, by whatever clock: the host's, or a device's own queue."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from trainer_ext.influence import PHASES, PhaseTimer
from trainer_ext.influence.timing import Span


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


def test_a_span_is_the_time_between_its_marks(clock: _Clock) -> None:
    clock.now = 5.0
    span = Span(clock)
    clock.now = 7.5
    span.close()
    clock.now = 100.0

    assert span.seconds == 2.5


@pytest.mark.parametrize("make", [Span.on, PhaseTimer.on])
def test_a_cpu_is_timed_by_the_host(make: Callable[[torch.device], Span | PhaseTimer]) -> None:
    made = make(torch.device("cpu"))

    if isinstance(made, Span):
        made.close()
        assert 0 <= made.seconds < 3600
    else:
        with made.phase("hessian_solve") as span:
            pass
        assert made.read()["hessian_solve"] == span.seconds >= 0


def test_phases_add_up_and_reading_starts_anew(clock: _Clock) -> None:
    timer = PhaseTimer(clock)
    for seconds in (2.0, 3.0):
        with timer.phase("hessian_solve"):
            clock.now += seconds
    clock.now += 50.0
    with timer.phase("token_scoring"):
        clock.now += 1.0

    assert timer.read() == {**dict.fromkeys(PHASES, 0.0), "hessian_solve": 5.0, "token_scoring": 1.0}
    assert timer.read() == dict.fromkeys(PHASES, 0.0)


def test_a_phase_after_a_reading_belongs_to_the_next(clock: _Clock) -> None:
    timer = PhaseTimer(clock)
    with timer.phase("token_scoring"):
        clock.now += 4.0
    timer.read()
    with timer.phase("token_scoring"):
        clock.now += 0.5

    assert timer.read()["token_scoring"] == 0.5


def test_a_phase_hands_out_its_span(clock: _Clock) -> None:
    timer = PhaseTimer(clock)

    with timer.phase("hessian_solve") as span:
        clock.now += 2.0

    assert span.seconds == 2.0
    assert timer.read()["hessian_solve"] == 2.0


def test_a_phase_that_fails_is_counted(clock: _Clock) -> None:
    timer = PhaseTimer(clock)

    def fail() -> None:
        clock.now += 4.0
        raise RuntimeError

    with pytest.raises(RuntimeError), timer.phase("token_scoring"):
        fail()

    assert timer.read()["token_scoring"] == 4.0


def test_time_of_another_timer_is_added(clock: _Clock) -> None:
    timer = PhaseTimer(clock)
    timer.add({"grad_staging": 1.5})
    timer.add({"grad_staging": 1.0, "token_scoring": 2.0})
    with timer.phase("token_scoring"):
        clock.now += 0.25

    seconds = timer.read()
    assert (seconds["grad_staging"], seconds["token_scoring"]) == (2.5, 2.25)
    assert timer.read() == dict.fromkeys(PHASES, 0.0)


def test_marks_are_taken_at_the_ends_of_a_phase_and_not_for_reading() -> None:
    taken: list[str] = []

    def mark() -> float:
        taken.append("mark")
        return float(len(taken))

    timer = PhaseTimer(mark)
    with timer.phase("hessian_solve"):
        taken.append("work")
    timer.read()

    assert taken == ["mark", "work", "mark"]
