"""Timings of an engine's passes and counters of what was captured, which share nothing."""

from __future__ import annotations

import pytest

from trainer_ext.influence.timing import Span
from trainer_ext.verl_plugin.counters import DebugCounters
from trainer_ext.verl_plugin.engine_methods import replaced
from trainer_ext.verl_plugin.pass_timing import PassTimer


class Engine:
    """Two micro-batches a batch: 2 s forward and 4 s backward each, of a clock of its own."""

    now = 0.0

    def forward_step(self, *, forward_only: bool) -> bool:
        self.now += 2
        return forward_only

    def forward_backward_batch(self, *, forward_only: bool = False) -> str:
        for _ in range(2):
            self.forward_step(forward_only=forward_only)
            self.now += 4
        return "done"


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def timer(engine: Engine) -> PassTimer:
    return PassTimer(lambda: Span(lambda: engine.now))


def test_passes_count_under_the_names_they_were_given(engine: Engine, timer: PassTimer) -> None:
    with timer.timing(engine, "forward_2", "loss_backward"):
        assert engine.forward_backward_batch() == "done"
        engine.now += 100  # no pass
    assert timer.read() == {"forward_1": 0, "logprob_backward": 0, "forward_2": 4, "loss_backward": 8}


def test_passes_without_gradients_and_passes_outside_do_not_count(engine: Engine, timer: PassTimer) -> None:
    with timer.timing(engine, "forward_1", "logprob_backward"):
        engine.forward_backward_batch(forward_only=True)
    engine.forward_backward_batch()
    assert not any(timer.read().values())
    assert set(vars(engine)) == {"now"}, "its methods are its own again"


def test_reading_timings_resets_timings_and_no_counter(engine: Engine, timer: PassTimer) -> None:
    counters = DebugCounters()
    with timer.timing(engine, "forward_1", "logprob_backward"):
        engine.forward_backward_batch()
    counters.add("tokens", 3)
    counters.add("tokens", 4)
    assert timer.read()["forward_1"] > 0
    assert counters.read() == {"tokens": 7}
    assert timer.read()["forward_1"] == 0
    assert counters.read() == {}


def test_reading_counters_resets_no_timing(engine: Engine, timer: PassTimer) -> None:
    counters = DebugCounters()
    with timer.timing(engine, "forward_1", "logprob_backward"):
        engine.forward_backward_batch()
    counters.read()
    assert timer.read()["logprob_backward"] > 0


def test_methods_come_back_in_the_order_they_were_replaced(engine: Engine) -> None:

    def outer() -> str:
        return "outer"

    def inner() -> str:
        return "inner"

    with replaced(engine, "forward_step", outer):
        with replaced(engine, "forward_step", inner):
            assert engine.forward_step() == "inner"  # type: ignore[call-arg]
        assert engine.forward_step() == "outer"  # type: ignore[call-arg]
    assert "forward_step" not in vars(engine)
