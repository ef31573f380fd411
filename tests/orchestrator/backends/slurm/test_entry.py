"""What a job does before the wrapper takes over."""

from __future__ import annotations

from pathlib import Path

from orchestrator.backends.slurm.entry import hand_over, job_id, newest, run
from orchestrator.backends.slurm.ticket import STARTED, read_started


def folders(tmp_path: Path, n: int) -> list[Path]:
    made = [tmp_path / str(i) for i in range(1, n + 1)]
    for folder in made:
        folder.mkdir()
    return made


def test_a_job_runs_the_newest_attempt_that_was_handed_to_it(tmp_path):
    first, second, third = folders(tmp_path, 3)
    assert newest(first) == first
    hand_over(first, second)
    hand_over(second, third)
    assert newest(first) == third


def test_a_chain_that_bites_its_tail_ends(tmp_path):
    first, second = folders(tmp_path, 2)
    hand_over(first, second)
    hand_over(second, first)
    assert newest(first) == second


def test_it_becomes_the_wrapper_and_leaves_word_of_its_id(tmp_path):
    (folder,) = folders(tmp_path, 1)
    became: list[list[str]] = []
    run(str(folder), lambda _path, words: became.append(words))
    assert became[0][1:] == ["-m", "orchestrator.job", str(folder)]
    assert (folder / STARTED).exists()


def test_of_two_jobs_of_one_attempt_the_first_is_remembered(tmp_path):
    (folder,) = folders(tmp_path, 1)
    (folder / STARTED).write_text("17")
    run(str(folder), lambda *_: None)
    assert read_started(folder) == "17"


def test_ids_are_written_as_squeue_writes_them():
    assert job_id({"SLURM_JOB_ID": "17"}) == "17"
    assert job_id({"SLURM_JOB_ID": "18", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}) == "17_3"


def test_the_cards_keep_one_name(tmp_path):
    (folder,) = folders(tmp_path, 1)
    nvidia = {"CUDA_VISIBLE_DEVICES": "0,1", "ROCR_VISIBLE_DEVICES": "0,1"}
    run(str(folder), lambda *_: None, nvidia)
    assert nvidia == {"CUDA_VISIBLE_DEVICES": "0,1"}
    amd = {"ROCR_VISIBLE_DEVICES": "0,1"}
    run(str(folder), lambda *_: None, amd)
    assert amd == {"ROCR_VISIBLE_DEVICES": "0,1"}
