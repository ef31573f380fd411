"""A job that does not end in its time."""

from __future__ import annotations

from tests.slurm.scenarios import RESOURCES, Played, Scenario

SCENARIO = Scenario(
    "limit",
    {"overrides": ["synthetic.fail=hang"], "resources": RESOURCES | {"time": "1m"}, "job_name": "hangs"},
    accounting=None,
)


def test_a_job_that_runs_into_its_time_limit_fails_with_that_verdict(played: Played) -> None:
    assert played.tried("hangs") == [("h100", "time_limit")], played.output
    assert played.states() == {"hangs": "failed"}
    assert played.exit_code == 1
    assert played.left_over() == []
