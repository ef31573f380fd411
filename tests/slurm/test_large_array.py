"""Two hundred points, while slurmctld is restarted under them."""

from __future__ import annotations

from tests.slurm.configuration import CORES_PER_NODE
from tests.slurm.scenarios import POOLS, RESOURCES, Played, Scenario, Stage

POINTS = 200
AT_ONCE = 8


def the_controller_is_restarted(stage: Stage) -> None:
    stage.wait_for(lambda: len(stage.started()) >= 10, "some jobs have begun")
    stage.cluster.stop("slurmctld")
    stage.cluster.start_slurmctld()


SCENARIO = Scenario(
    "array",
    {
        "parameters": {"seed": list(range(POINTS))},
        "alias": {"seed": "synthetic.seed"},
        "overrides": ["trainer.total_training_steps=1", "synthetic.step_seconds=0"],
        "job_name": "seed-{seed}",
        # cores set the pace: Slurm 22.05 does not get cards back that were in use while it was restarted
        "pools": {"h100": POOLS["h100"] | {"cpus": 2 * CORES_PER_NODE // AT_ONCE}},
        "resources": RESOURCES | {"gpus": 0, "ladder": ["h100"]},
        "budget": {"max_parallel": POINTS},
    },
    the_controller_is_restarted,
    accounting=None,
)


def test_every_point_succeeds_in_its_first_attempt(played: Played) -> None:
    assert played.exit_code == 0, played.output[-3000:]
    assert set(played.states().values()) == {"succeeded"}
    assert {tuple(played.tried(name)) for name in played.states()} == {(("h100", "completed"),)}


def test_every_point_ran_once(played: Played) -> None:
    assert len(played.complete_runs()) == POINTS
    assert set(played.complete_runs().values()) == {1}
    assert played.left_over() == []


def test_points_of_one_shape_are_tasks_of_few_jobs(played: Played) -> None:
    tasks = played.stage.job_ids("COMPLETED")
    assert len(tasks) == POINTS
    assert len({task.partition("_")[0] for task in tasks}) <= 3
