"""Somebody more important takes the node; the job saves, gives way, and goes on where it was."""

from __future__ import annotations

import json

from tests.slurm.configuration import CORES_PER_NODE
from tests.slurm.scenarios import RESOURCES, Played, Scenario, Stage


def somebody_takes_the_node(stage: Stage) -> None:
    stage.wait_for(lambda: stage.steps() >= 1, "the job has done a step")
    stage.cluster.run(
        "sbatch",
        "--partition=urgent",
        f"--cpus-per-task={CORES_PER_NODE}",
        "--job-name=urgent",
        "--output=/dev/null",
        "--wrap=sleep 5",
    )


SCENARIO = Scenario(
    "spot",
    {
        "pools": {"h100": {"gpus": 8, "partition": "spot", "cpus": CORES_PER_NODE}},
        "resources": RESOURCES | {"gpus": 0, "ladder": ["h100"]},
        "overrides": ["synthetic.step_seconds=2", "trainer.total_training_steps=6"],
        "job_name": "point",
    },
    somebody_takes_the_node,
)


def test_a_preempted_point_is_run_again_and_succeeds(played: Played) -> None:
    verdicts = [verdict for _, verdict in played.tried("point")]
    assert verdicts == ["preempted", "completed"], played.output
    assert played.exit_code == 0


def test_the_second_attempt_goes_on_after_what_the_first_saved(played: Played) -> None:
    first, second = played.stage.attempts()
    saved = json.loads((first / "checkpoint.json").read_text())["saved_after"]
    assert saved >= 1
    assert json.loads((second / "checkpoint.json").read_text())["resumed_after"] == saved
    steps = [json.loads(line)["step"] for line in (second / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_it_ran_to_its_end_once_and_no_job_is_left(played: Played) -> None:
    assert played.complete_runs() == {"point": 1}
    assert played.left_over() == []
