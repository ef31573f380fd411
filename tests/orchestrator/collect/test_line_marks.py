"""Ranks and stamps at the beginning of lines, in the forms that the processes of a job print them."""

from __future__ import annotations

import pytest

from orchestrator.collect.line_marks import rank_of, time_of


@pytest.mark.parametrize(
    ("line", "rank"),
    [
        ("[rank3]: ValueError: 3", 3),
        ("\x1b[36m(WorkerDict pid=4121)\x1b[0m [rank12]:[E1121 10:04:11.22 ProcessGroupNCCL.cpp:633] ...", 12),
        ("[E ProcessGroupNCCL.cpp:458] [Rank 7] Watchdog caught collective operation timeout", 7),
        ("[E1119 01:04:03.35 ProcessGroupNCCL.cpp:1413] [PG 3 Rank 2] Heartbeat monitor timed out!", 2),
        ("[PG ID 2 PG GUID 3 Rank 5] Process group watchdog thread terminated", 5),
        ("[default3]:ValueError: 3", 3),
        ("ValueError: rank 3 has no data", None),
        ("step:1 - rank:3", None),
    ],
)
def test_a_rank_is_read_from_the_prefix_alone(line: str, rank: int | None) -> None:
    assert rank_of(line) == rank


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("2026-11-21T10:04:11.120Z torch.OutOfMemoryError: CUDA", "11-21 10:04:11.120000"),
        ("(raylet) [2026-11-21 09:57:19,206 E 393 393] (raylet) node_manager.cc:3277: ...", "11-21 09:57:19.206000"),
        ("slurmstepd: error: *** JOB 46 ON n1 CANCELLED AT 2026-11-21T09:33:02 DUE TO TIME LIMIT", None),
        ("ERROR 11-18 18:07:28 engine.py:366] ValueError: no", "11-18 18:07:28.000000"),
        ("[rank0]:[E321 02:07:08.408271257 ProcessGroupNCCL.cpp:607] [Rank 0]", "03-21 02:07:08.408271"),
        ("E1126 10:58:27.510000 15315 torch/distributed/elastic/api.py:1002] failed", "11-26 10:58:27.510000"),
        ("ValueError: 10:58:27 is no number", None),
        ("x" * 300 + " 2026-11-21 10:04:11", None),
    ],
)
def test_stamps_of_every_form_become_one_that_sorts(line: str, time: str | None) -> None:
    assert time_of(line) == time
