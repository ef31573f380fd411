from __future__ import annotations

import math
import signal

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.job.stopping import Limits, Stop, next_deadline, react

LIMITS = Limits(end_at=100.0, grace_s=20.0)
times = st.floats(0, 1000)
signals = st.sampled_from([None, signal.SIGTERM, signal.SIGINT])
histories = st.lists(st.tuples(st.floats(0, 30), signals), max_size=40)


def play(history, limits):
    """Every step's (time, state, sent) of a wrapper that got these signals after these pauses."""
    now, stop, steps = 0.0, None, []
    for pause, received in history:
        now += pause
        stop, sent = react(stop, received, now, limits)
        steps.append((now, stop, sent))
    return steps


def test_nothing_happens_before_the_limit():
    assert react(None, None, 99.9, LIMITS) == (None, None)
    assert next_deadline(None, LIMITS) == 100.0


def test_the_limit_asks_and_the_grace_kills():
    stop, sent = react(None, None, 100.0, LIMITS)
    assert (stop, sent) == (Stop("time_limit", 120.0), signal.SIGTERM)
    assert react(stop, None, 119.0, LIMITS) == (stop, None)
    assert next_deadline(stop, LIMITS) == 120.0
    assert react(stop, None, 120.0, LIMITS) == (Stop("time_limit", math.inf), signal.SIGKILL)


def test_a_received_signal_is_passed_on_as_it_is():
    assert react(None, signal.SIGINT, 5.0, LIMITS) == (Stop("terminated", 25.0), signal.SIGINT)


@given(histories)
def test_the_first_reason_stays(history):
    reasons = [stop.reason for _, stop, _ in play(history, LIMITS) if stop]
    assert len(set(reasons)) <= 1


@given(histories)
def test_the_kill_comes_once_and_no_earlier_than_the_grace(history):
    steps = play(history, LIMITS)
    asked = next((now for now, _, sent in steps if sent is not None), None)
    kills = [now for now, _, sent in steps if sent == signal.SIGKILL]
    assert len(kills) <= 1
    assert all(now >= asked + LIMITS.grace_s for now in kills)


@given(histories)
def test_after_the_grace_the_job_has_been_killed(history):
    steps = play(history, LIMITS)
    asked = next((now for now, _, sent in steps if sent is not None), math.inf)
    if any(now >= asked + LIMITS.grace_s for now, _, _ in steps):
        assert any(sent == signal.SIGKILL for _, _, sent in steps)


@given(histories)
def test_without_signals_and_limit_nothing_is_ever_sent(history):
    silent = [(pause, None) for pause, _ in history]
    assert all(step[1:] == (None, None) for step in play(silent, Limits()))
