"""The orchestrator dies by SIGKILL after each step of its protocol, and the next one goes on."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.slurm.mortal import CHANGES, COMMANDS, live
from tests.slurm.scenarios import Played, Scenario, Stage

LIVES = 60
"""More than the protocol has steps."""


def killed_at_each_step(stage: Stage, path: Path, _happens: Callable[[Stage], None]) -> tuple[int, str]:
    """The last exit code, and the step after which each process died."""
    said, survived = "", set[str]()
    for _ in range(LIVES):
        deadly = [step for step in (*CHANGES, *COMMANDS) if step not in survived]
        life = live(stage, path, deadly)
        said += life.stdout + life.stderr
        if life.returncode != -signal.SIGKILL:
            return life.returncode, said
        # whoever comes next repeats commands until what they did is in the store; each is deadly once
        step = life.stdout.split()[-1]
        survived = survived | {step} if step in COMMANDS else set()
    return 1, said


SCENARIO = Scenario(
    "killed",
    {
        "overrides": ["synthetic.fail_on_pools=[h100]"],
        "parameters": {"fail": ["none", "cuda_oom"]},
        "alias": {"fail": "synthetic.fail"},
        "job_name": "{fail}",
    },
    drive=killed_at_each_step,
)


def test_the_sweep_comes_to_its_end_all_the_same(played: Played) -> None:
    assert played.exit_code == 0, played.output
    assert played.tried("none") == [("h100", "completed")]
    assert played.tried("cuda-oom") == [("h100", "gpu_oom"), ("h200", "completed")]


def test_it_died_after_every_step_of_the_protocol(played: Played) -> None:
    died = Counter(played.output.split())
    assert died["start_attempt"] == 3, "two points, one of which is tried twice"
    assert died["sbatch"] == 2
    in_place = ("requeuehold", "update", "release")
    assert all(died[step] >= 1 for step in in_place), "the second try runs in the first one's job"
    assert died["move_attempt"] >= 3 * 5


def test_no_point_ran_twice_and_no_job_is_left(played: Played) -> None:
    assert played.complete_runs() == {"none": 1, "cuda-oom": 1}
    assert played.left_over() == []
