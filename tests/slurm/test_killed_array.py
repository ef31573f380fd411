"""The orchestrator dies when an array has been submitted and not one of its tasks' ids has been written down."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from tests.slurm.mortal import live
from tests.slurm.scenarios import Played, Scenario, Stage

POINTS = 8


def killed_after_the_first_submission(stage: Stage, path: Path, _happens: Callable[[Stage], None]) -> tuple[int, str]:
    first = live(stage, path, ["sbatch"])
    assert first.returncode == -signal.SIGKILL, first.stderr
    second = live(stage, path, ["sbatch"])
    return second.returncode, second.stdout + second.stderr


SCENARIO = Scenario(
    "orphans",
    {
        "parameters": {"seed": list(range(POINTS))},
        "alias": {"seed": "synthetic.seed"},
        "job_name": "seed-{seed}",
        "budget": {"max_parallel": POINTS},
    },
    drive=killed_after_the_first_submission,
)


def test_the_next_process_adopts_every_task_and_submits_nothing(played: Played) -> None:
    assert played.exit_code == 0, played.output
    assert {tuple(played.tried(name)) for name in played.states()} == {(("h100", "completed"),)}
    assert len({task.partition("_")[0] for task in played.stage.job_ids("COMPLETED")}) == 1


def test_every_point_ran_once(played: Played) -> None:
    assert len(played.complete_runs()) == POINTS
    assert set(played.complete_runs().values()) == {1}
    assert played.left_over() == []
