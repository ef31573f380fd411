"""A node dies under a running job, and with it every process on it."""

from __future__ import annotations

import json

from orchestrator.backends.slurm.ticket import STARTED
from tests.slurm.configuration import FRAGILE
from tests.slurm.scenarios import RESOURCES, Played, Scenario, Stage


def the_node_dies(stage: Stage) -> None:
    cluster, node = stage.cluster, FRAGILE.name(stage.cluster.name)
    stage.wait_for(lambda: stage.steps() == 1, "the job is half-way")
    assert cluster.state(FRAGILE).startswith("mixed"), "the job runs on the node that Slurm takes first"
    cluster.crash(FRAGILE)
    # Slurm would notice by itself after SlurmdTimeout, and then half a minute of looking
    cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=crashed")
    stage.wait_for(lambda: len(stage.started()) == 2, "the point is tried again")
    cluster.start_slurmd(FRAGILE)
    cluster.run("scontrol", "update", f"nodename={node}", "state=resume")


SCENARIO = Scenario(
    "node",
    {
        "pools": {"h100": {"gpus": 8, "partition": "fragile"}},
        "resources": RESOURCES | {"ladder": ["h100"]},
        "overrides": ["synthetic.step_seconds=4"],
        "job_name": "point",
    },
    the_node_dies,
)


def test_the_point_is_run_again_elsewhere_and_succeeds(played: Played) -> None:
    assert played.tried("point") == [("h100", "node_failure"), ("h100", "completed")], played.output
    assert played.exit_code == 0


def test_it_ran_to_its_end_once_and_no_job_is_left(played: Played) -> None:
    assert played.complete_runs() == {"point": 1}
    assert played.left_over() == []


def test_the_attempt_that_died_left_a_claim_and_no_outcome(played: Played) -> None:
    first, second = played.stage.attempts()
    assert not (first / "outcome.json").exists()
    assert json.loads((second / "outcome.json").read_text())["exit_code"] == 0
    assert (first / STARTED).exists()
