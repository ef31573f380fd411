"""Ranks in processes of their own, which may fail, hang or end early."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from tests.trainer_ext.bench.step.values import make_plan
from trainer_ext.bench.step.events import Event
from trainer_ext.bench.step.launch import rank_environment, run_ranks

JOB: dict[str, Any] = {"job": {"env": {"OMP_NUM_THREADS": 1}}, "trainer": {"device": "cpu"}}
TELL = """
import os, sys
rank = int(os.environ["RANK"])
if rank == 0:
    with open(sys.argv[1] + "/events.jsonl", "a") as file:
        file.write('{"ready": 1.0, "row": null}\\n')
"""


def run(folder: Path, script: str, ranks: int = 2, **changes: Any) -> tuple[list[Event], list[Event]]:
    """(the events, those that were told on the way)."""
    told: list[Event] = []
    command = (sys.executable, "-c", TELL + script)
    events = run_ranks(
        make_plan(ranks=ranks, **changes),
        JOB,
        folder,
        time.time(),
        lambda _, new: told.extend(new),
        command=command,
        grace_s=0.0,
    )
    return events, told


def test_what_the_first_rank_tells_arrives(tmp_path: Path) -> None:
    events, told = run(tmp_path, "print('to the log')")
    assert events == told == [Event(ready=1.0)]
    assert (tmp_path / "rank1.log").read_text() == "to the log\n"


def test_a_rank_that_fails_ends_the_others_and_is_quoted(tmp_path: Path) -> None:
    start = time.monotonic()
    events, _ = run(tmp_path, "import time\nsys.exit('no more memory') if rank else time.sleep(60)")
    assert events == [Event(ready=1.0), Event(failure="rank 1 ended with 1: no more memory")]
    assert time.monotonic() - start < 50


def test_ranks_that_do_not_end_are_ended_and_what_they_told_is_kept(tmp_path: Path) -> None:
    events, _ = run(tmp_path, "import time\ntime.sleep(60)", ranks=1, budget_s=1.0)
    assert events[-1] == Event(failure="stopped: the ranks did not end within the budget")


def test_a_rank_sees_one_gpu_and_the_variables_of_the_job() -> None:
    gpu = {"job": {"env": {"VERL_USE_EXTERNAL_MODULES": "m"}}, "trainer": {"device": "cuda"}}
    seen = rank_environment(make_plan(ranks=2), gpu, rank=1, port=5)
    assert (seen["RANK"], seen["WORLD_SIZE"], seen["MASTER_PORT"]) == ("1", "2", "5")
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["LOCAL_RANK"]) == ("1", "0"), "as under Ray"
    assert seen["VERL_USE_EXTERNAL_MODULES"] == "m"
