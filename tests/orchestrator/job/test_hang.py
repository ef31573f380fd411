"""A job is taken for dead by two signs and never by one."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.job.hang import HangLimits, Phase, Signs, allowed_s, hung
from orchestrator.job.heartbeat import StepTimes
from orchestrator.job.memory import Idleness

LIMITS = HangLimits(
    factor=6,
    step_floor_s=900,
    start_floor_s=7200,
    end_floor_s=900,
    silence_s=600,
    usual_step_s=None,
    usual_start_s=None,
)
NOW = 100_000.0
DEAD = Signs(observed_at=NOW, phase=Phase.STEPS, since=NOW - 2000, output_at=NOW - 2000, own_step_s=(100.0, 110.0))
times = st.floats(0, 20_000)


def test_no_step_and_no_output_for_too_long_is_a_hang():
    assert hung(DEAD, LIMITS, NOW) == "no step for 2000 s (phase steps, allowed 900 s), and no output for 2000 s"


@pytest.mark.parametrize(
    "signs",
    [
        pytest.param(replace(DEAD, output_at=NOW - 10), id="it prints"),
        pytest.param(replace(DEAD, since=NOW - 899), id="it made a step"),
        pytest.param(replace(DEAD, own_step_s=(400.0,)), id="its steps are slow"),
        pytest.param(replace(DEAD, phase=Phase.START), id="it is starting"),
        pytest.param(replace(DEAD, observed_at=NOW - 61), id="nobody looked"),
    ],
)
def test_one_sign_alone_is_no_hang(signs):
    assert hung(signs, LIMITS, NOW) is None


def test_a_job_that_prints_while_no_gpu_works_hangs():
    printing = replace(DEAD, output_at=NOW)
    assert hung(replace(printing, idle_since=NOW - 599), LIMITS, NOW) is None
    assert "no work on any GPU for 700 s" in (hung(replace(printing, idle_since=NOW - 700), LIMITS, NOW) or "")


def test_idle_gpus_alone_are_no_hang():
    assert hung(replace(DEAD, since=NOW - 10, output_at=NOW, idle_since=NOW - 5000), LIMITS, NOW) is None


def test_the_sweeps_history_stretches_what_a_phase_may_take():
    seen = replace(LIMITS, usual_step_s=2400.0, usual_start_s=3000.0)
    assert allowed_s(replace(DEAD, own_step_s=()), seen) == 6 * 2400
    assert allowed_s(replace(DEAD, phase=Phase.START), seen) == 6 * 3000
    assert allowed_s(replace(DEAD, own_step_s=(2600.0, 2800.0)), seen) == 6 * 2600


def test_a_step_that_nobody_has_seen_yet_may_take_as_long_as_the_start():
    assert allowed_s(replace(DEAD, own_step_s=()), LIMITS) == 7200


def test_a_job_that_does_not_end_after_its_last_step_hangs():
    late = replace(DEAD, phase=Phase.END, since=NOW - 901, output_at=NOW - 901, own_step_s=(5000.0,))
    assert (hung(late, LIMITS, NOW) or "").startswith("no end for 901 s")


@given(times, times, times | st.none(), st.sampled_from(Phase), st.lists(st.floats(0.1, 1e4), max_size=4).map(tuple))
def test_less_than_the_floor_or_a_living_second_sign_never_ends_a_job(waited, silent, idle, phase, steps):
    signs = Signs(NOW, phase, NOW - waited, NOW - silent, None if idle is None else NOW - idle, steps)
    reason = hung(signs, LIMITS, NOW)
    if waited <= 900 or (silent <= 600 and (idle is None or idle <= 600)):
        assert reason is None
    assert allowed_s(signs, LIMITS) >= 900


def test_limits_of_a_newer_orchestrator_are_read_as_far_as_they_are_known():
    assert HangLimits.of({"factor": 3.0, "usual_step_s": None, "mood": 1.0}) == HangLimits(factor=3.0)


def test_steps_are_timed_by_when_they_were_seen_to_end():
    times = StepTimes()
    times.begin(10.0)
    times.see(3, 60.0)  # restored from a checkpoint, or too short to tell apart
    times.see(0, 61.0)
    times.see(1, 70.0)
    times.see(2, 90.0)
    assert (times.first_s, times.each_s, times.median_s) == (50.0, (10.0, 10.0, 10.0), 10.0)


def test_gpus_are_idle_only_while_all_of_them_are_and_somebody_looks():
    idleness = Idleness()
    idleness.see([], 0.0)
    assert idleness.since(1.0) is None, "without a GPU there is no such sign"
    idleness.see([0, 4], 10.0)
    idleness.see([1, 0], 20.0)
    assert idleness.since(21.0) == 10.0
    assert idleness.since(51.0) is None, "the driver no longer answers"
    idleness.see([0, 100], 52.0)
    assert idleness.since(53.0) is None
    idleness.see([0, None], 54.0)
    assert idleness.since(55.0) is None, "a card that does not tell may be busy"


SOON = {"factor": 2.0, "step_floor_s": 0.3, "start_floor_s": 0.3, "end_floor_s": 0.3, "silence_s": 0.3}
HANGS = """
import time
from trainer_ext.stacks import answer_with_stacks
answer_with_stacks()
def waits_for_a_peer():
    time.sleep(600)
waits_for_a_peer()
"""


def test_a_job_that_hangs_is_ended_and_leaves_its_stacks(make_attempt):
    attempt = make_attempt(HANGS, hang=SOON, time_limit_s=60.0)
    assert attempt.run().returncode == 0
    assert attempt.outcome.stop_reason == "hang"
    assert "no step for" in attempt.outcome.stop_detail
    stacks = attempt.paths.stacks.read_text()
    assert stacks.startswith(attempt.outcome.stop_detail)
    assert f"python{sys.version_info.major}" in stacks or "python" in stacks
    assert "waits_for_a_peer" in stacks + attempt.paths.console.read_text()


def test_a_preparation_that_hangs_is_ended_too(make_attempt):
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    attempt = make_attempt(prepare=[sleeper], hang=SOON, time_limit_s=60.0)
    assert attempt.run().returncode == 0
    assert (attempt.outcome.stop_reason, attempt.outcome.phase) == ("hang", "prepare")


def test_a_quiet_job_that_makes_its_steps_is_left_alone(make_attempt):
    code = """
import json, time
for step in range(1, 5):
    time.sleep(0.4)
    open("metrics.jsonl", "a").write(json.dumps({"step": step, "data": {}}) + "\\n")
"""
    patient = {**SOON, "step_floor_s": 30.0, "start_floor_s": 30.0, "end_floor_s": 30.0}
    attempt = make_attempt(code, hang=patient, expected_steps=4)
    assert attempt.run().returncode == 0
    assert (attempt.outcome.exit_code, attempt.outcome.stop_reason) == (0, None)
    assert attempt.outcome.first_step_s is not None
    assert math.isfinite(attempt.outcome.first_step_s)
