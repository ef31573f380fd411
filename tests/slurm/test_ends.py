"""Every way in which a job can end by itself, and one in which somebody ends it."""

from __future__ import annotations

import re

import pytest

from orchestrator.backends.slurm.ticket import STARTED
from tests.slurm.cluster import enforcement
from tests.slurm.configuration import Enforcement
from tests.slurm.scenarios import Played, Scenario, Stage


def somebody_cancels_the_slow_job(stage: Stage) -> None:
    def slow() -> list[str]:
        folders = stage.started(lambda config: config["synthetic"]["step_seconds"] == 60)
        return [(folder / STARTED).read_text() for folder in folders if (folder / STARTED).exists()]

    stage.wait_for(slow, "the slow job runs")
    stage.cluster.run("scancel", slow()[0])


SCENARIO = Scenario(
    "ends",
    {
        "overrides": ["synthetic.fail_on_pools=[h100]"],
        "include": [
            {"case": "success", "fail": "none"},
            {"case": "exit", "fail": "exit_nonzero_after"},
            {"case": "error", "fail": "python_error"},
            {"case": "gpu", "fail": "cuda_oom"},
            {"case": "host", "fail": "host_oom"},
            {"case": "slow", "fail": "none", "step_seconds": 60},
        ],
        "alias": {
            "case": "synthetic.seed",
            "fail": "synthetic.fail",
            "step_seconds": "synthetic.step_seconds",
        },
        "job_name": "{case}",
    },
    somebody_cancels_the_slow_job,
)


def test_every_point_ends_as_its_job_did(played: Played) -> None:
    assert played.states() == {
        "success": "succeeded",
        "exit": "succeeded",
        "error": "failed",
        "gpu": "succeeded",
        "host": "succeeded",
        "slow": "cancelled",
    }, played.output
    assert played.exit_code == 1


def test_a_non_zero_exit_after_completion_is_an_anomaly_and_no_failure(played: Played) -> None:
    assert played.tried("exit") == [("h100", "completed")]
    assert "nonzero_exit_after_completion" in played.point("exit")["anomalies"]


def test_an_error_of_the_code_is_not_tried_again(played: Played) -> None:
    assert played.tried("error") == [("h100", "code_error")]


def test_a_card_that_is_too_small_sends_the_point_to_the_larger_pool(played: Played) -> None:
    assert played.tried("gpu") == [("h100", "gpu_oom"), ("h200", "completed")]


@pytest.mark.skipif(enforcement() is Enforcement.POLLING, reason="needs control groups that may be written")
def test_a_job_killed_for_its_memory_goes_to_the_larger_pool(played: Played) -> None:
    assert played.tried("host") == [("h100", "host_oom"), ("h200", "completed")]


def test_a_job_that_somebody_cancels_is_not_tried_again(played: Played) -> None:
    assert played.tried("slow") == [("h100", "cancelled")]


def test_no_point_runs_twice_to_its_end_and_no_job_is_left(played: Played) -> None:
    assert played.complete_runs() == {"success": 1, "exit": 1, "error": 0, "gpu": 1, "host": 1, "slow": 0}
    assert played.left_over() == []


def test_the_second_attempt_runs_on_the_nodes_of_the_larger_pool(played: Played) -> None:
    shown = played.stage.cluster.run(
        "squeue", "--noheader", "--array", "--states=COMPLETED", "--Format=NodeList:60,Name:80"
    )
    nodes = [line.split()[0] for line in shown.splitlines() if line.split()[-1].startswith("ends-")]
    assert sum(bool(re.search(r"-h200-\d$", node)) for node in nodes) == 2
