from __future__ import annotations

import math
import signal

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.job.stopping import Limits, Stop, next_deadline, react

LIMITS = Limits(end_at=100.0, grace_s=20.0)
NOTICE = Limits(end_at=100.0, grace_s=20.0, notice_s=30.0)
signals = st.sampled_from([None, signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
limits = st.sampled_from([LIMITS, NOTICE, Limits()])
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
    assert (stop, sent) == (Stop("time_limit", math.inf, 120.0), signal.SIGTERM)
    assert react(stop, None, 119.0, LIMITS) == (stop, None)
    assert next_deadline(stop, LIMITS) == 120.0
    assert react(stop, None, 120.0, LIMITS) == (Stop("time_limit", math.inf, math.inf), signal.SIGKILL)


def test_a_received_signal_is_passed_on_as_it_is():
    stop, sent = react(None, signal.SIGINT, 5.0, LIMITS)
    assert (stop.reason, stop.kill_at, sent) == ("terminated", 25.0, signal.SIGINT)


def test_where_there_is_notice_the_signal_waits_for_its_end():
    stop, sent = react(None, signal.SIGINT, 5.0, NOTICE)
    assert (stop, sent) == (Stop("terminated", 35.0, 55.0, signal.SIGINT), None)
    assert next_deadline(stop, NOTICE) == 35.0
    assert react(stop, None, 34.0, NOTICE) == (stop, None)
    stop, sent = react(stop, None, 35.0, NOTICE)
    assert (stop.kill_at, sent) == (55.0, signal.SIGINT)


def test_whoever_signals_again_ends_the_notice():
    stop, _ = react(None, signal.SIGTERM, 5.0, NOTICE)
    stop, sent = react(stop, signal.SIGTERM, 10.0, NOTICE)
    assert (stop.kill_at, sent) == (30.0, signal.SIGTERM)
    assert react(stop, signal.SIGTERM, 20.0, NOTICE)[0].kill_at == 30.0, "the deadline moved"


def test_the_time_limits_notice_comes_before_its_end():
    assert next_deadline(None, NOTICE) == 70.0
    stop, sent = react(None, None, 70.0, NOTICE)
    assert (stop, sent) == (Stop("time_limit", 100.0, 120.0), None)
    assert react(stop, None, 100.0, NOTICE)[1] == signal.SIGTERM


def test_a_warning_asks_and_sends_nothing_until_the_time_limit():
    stop, sent = react(None, signal.SIGUSR2, 5.0, LIMITS)
    assert (stop.reason, sent) == ("warned", None)
    assert react(stop, signal.SIGUSR2, 6.0, LIMITS) == (stop, None)
    assert react(stop, None, 99.0, LIMITS) == (stop, None)
    assert react(stop, None, 100.0, LIMITS) == (Stop("time_limit", math.inf, 120.0), signal.SIGTERM)


def test_a_signal_after_a_warning_goes_on_at_once_notice_or_not():
    stop, _ = react(None, signal.SIGUSR2, 5.0, NOTICE)
    stop, sent = react(stop, signal.SIGTERM, 6.0, NOTICE)
    assert (stop.reason, stop.kill_at, sent) == ("terminated", 26.0, signal.SIGTERM)


@given(histories, limits)
def test_the_first_reason_stays_unless_it_was_a_warning(history, given_limits):
    reasons = [stop.reason for _, stop, _ in play(history, given_limits) if stop and stop.reason != "warned"]
    assert len(set(reasons)) <= 1


@given(histories, limits)
def test_the_kill_comes_once_and_no_earlier_than_the_grace(history, given_limits):
    steps = play(history, given_limits)
    asked = next((now for now, _, sent in steps if sent is not None), None)
    kills = [now for now, _, sent in steps if sent == signal.SIGKILL]
    assert len(kills) <= 1
    assert all(now >= asked + given_limits.grace_s for now in kills)


@given(histories, limits)
@example([(0.0, signal.SIGTERM), (20.0, None), (30.0, None), (0.0, None)], NOTICE)  # slept through both deadlines
def test_once_the_notice_is_over_the_job_has_been_signalled(history, given_limits):
    steps = play(history, given_limits)
    told = next((index for index, (_, stop, _) in enumerate(steps) if stop and stop.reason != "warned"), len(steps))
    for index in range(told, len(steps)):
        if steps[index][0] >= steps[told][0] + given_limits.notice_s:
            assert any(sent is not None for _, _, sent in steps[: index + 1])


@given(histories, limits)
@example([(0.0, signal.SIGTERM), (50.0, None), (19.0, None), (1.0, None)], NOTICE)
def test_once_the_grace_is_over_the_job_has_been_killed(history, given_limits):
    steps = play(history, given_limits)
    signalled = next((index for index, (_, _, sent) in enumerate(steps) if sent is not None), len(steps))
    for index in range(signalled + 1, len(steps)):
        if steps[index][0] >= steps[signalled][0] + given_limits.grace_s:
            assert any(sent == signal.SIGKILL for _, _, sent in steps[: index + 1])


@given(histories, limits)
def test_nothing_is_sent_before_the_first_stop_and_no_stop_is_ever_taken_back(history, given_limits):
    steps = play(history, given_limits)
    stopping = [stop is not None for _, stop, _ in steps]
    assert stopping == sorted(stopping)
    assert all(sent is None for _, stop, sent in steps if stop is None)


@given(histories)
def test_without_signals_and_limit_nothing_is_ever_sent(history):
    silent = [(pause, None) for pause, _ in history]
    assert all(step[1:] == (None, None) for step in play(silent, Limits()))
