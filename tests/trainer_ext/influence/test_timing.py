from __future__ import annotations

import pytest
import torch

from trainer_ext.influence import PHASES, PhaseTimer


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_phases_add_up_and_reading_starts_anew() -> None:
    clock = _Clock()
    timer = PhaseTimer(clock)
    for seconds in (2.0, 3.0):
        with timer.phase("hessian_solve"):
            clock.now += seconds
    with timer.phase("token_scoring"):
        clock.now += 1.0

    assert timer.read() == {**dict.fromkeys(PHASES, 0.0), "hessian_solve": 5.0, "token_scoring": 1.0}
    assert timer.read() == dict.fromkeys(PHASES, 0.0)


def test_a_phase_that_fails_is_counted() -> None:
    clock = _Clock()
    timer = PhaseTimer(clock)

    def fail() -> None:
        clock.now += 4.0
        raise RuntimeError

    with pytest.raises(RuntimeError), timer.phase("token_scoring"):
        fail()

    assert timer.read()["token_scoring"] == 4.0


def test_time_of_another_timer_is_added() -> None:
    timer = PhaseTimer(_Clock())
    timer.add({"grad_staging": 1.5})
    timer.add({"grad_staging": 1.0, "token_scoring": 2.0})

    seconds = timer.read()
    assert (seconds["grad_staging"], seconds["token_scoring"]) == (2.5, 2.0)


def test_profiling_waits_for_the_device_at_both_ends() -> None:
    waits: list[str] = []
    timer = PhaseTimer(_Clock(), synchronize=lambda: waits.append("wait"))

    with timer.phase("hessian_solve"):
        waits.append("work")

    assert waits == ["wait", "work", "wait"]


def test_profiling_on_a_cpu_waits_for_nothing() -> None:
    with PhaseTimer.profiling(torch.device("cpu")).phase("hessian_solve"):
        pass
