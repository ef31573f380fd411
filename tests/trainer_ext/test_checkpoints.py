"""When a checkpoint counts: at no moment of its making, and of the removal of older ones, is half of one taken for a whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainer_ext import checkpoints, records


def do_step(attempt: Path, step: int, score: str = "scores") -> None:
    (attempt / records.INFLUENCE_DIR).mkdir(parents=True, exist_ok=True)
    records.write_atomic(attempt / records.INFLUENCE_DIR / records.npz_name(step), f"{score} {step}")
    with (attempt / records.METRICS).open("a") as file:
        file.write(json.dumps({"step": step, "data": {"loss": 0.1 * step, "nan": None}}) + "\n")


def save(root: Path, step: int) -> Path:
    """What the trainer writes."""
    folder = checkpoints.folder_of(root, step)
    checkpoints.begin(folder)
    (folder / "actor").mkdir(parents=True, exist_ok=True)
    (folder / "actor" / "model.pt").write_text(f"weights {step}")
    return folder


def noted(attempt: Path) -> records.Checkpoint:
    return records.Checkpoint.from_json((attempt / records.CHECKPOINT).read_text())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def attempt(tmp_path: Path) -> Path:
    return tmp_path / "1"


def test_a_checkpoint_counts_once_it_is_confirmed(root: Path, attempt: Path) -> None:
    assert checkpoints.newest(root) is None
    do_step(attempt, 1)
    folder = save(root, 1)
    assert checkpoints.newest(root) is None
    checkpoints.confirm(folder, attempt)
    assert checkpoints.newest(root) == folder


def test_the_newest_is_the_latest_step_not_the_last_name(root: Path, attempt: Path) -> None:
    for step in (1, 2, 10, 9):
        do_step(attempt, step)
        checkpoints.confirm(save(root, step), attempt)
    assert checkpoints.newest(root) == root / "global_step_10"


def test_a_restored_attempt_holds_every_step_up_to_the_checkpoint_and_none_after(
    root: Path, attempt: Path, tmp_path: Path
) -> None:
    for step in (1, 2):
        do_step(attempt, step)
    folder = save(root, 2)
    checkpoints.confirm(folder, attempt)
    do_step(attempt, 3)
    second = tmp_path / "2"
    second.mkdir()
    rows = checkpoints.restore(folder, second)
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[1]["data"] == {"loss": 0.2, "nan": None}
    files = sorted((second / records.INFLUENCE_DIR).iterdir())
    assert [file.read_text() for file in files] == ["scores 1", "scores 2"]
    assert files[0].stat().st_ino == (attempt / records.INFLUENCE_DIR / files[0].name).stat().st_ino, "takes up space"


def test_the_attempt_folder_says_where_the_attempt_took_up_and_where_another_would(
    root: Path, attempt: Path, tmp_path: Path
) -> None:
    do_step(attempt, 1)
    checkpoints.confirm(save(root, 1), attempt)
    assert noted(attempt) == records.Checkpoint(saved_after=1)
    second = tmp_path / "2"
    checkpoints.restore(root / "global_step_1", second)
    assert noted(second) == records.Checkpoint(resumed_after=1)
    do_step(second, 2)
    checkpoints.confirm(save(root, 2), second)
    assert noted(second) == records.Checkpoint(resumed_after=1, saved_after=2)


def test_records_outlive_the_attempt_that_made_them(root: Path, attempt: Path, tmp_path: Path) -> None:
    do_step(attempt, 1)
    checkpoints.confirm(save(root, 1), attempt)
    shutil.rmtree(attempt)
    checkpoints.restore(root / "global_step_1", tmp_path / "2")
    assert (tmp_path / "2" / records.INFLUENCE_DIR / records.npz_name(1)).read_text() == "scores 1"


def test_steps_of_another_trajectory_never_mix_in(root: Path, attempt: Path, tmp_path: Path) -> None:
    """The first attempt went on to step 3 without a checkpoint; the second does step 2 anew, and dies after saving it."""
    do_step(attempt, 1, "first")
    checkpoints.confirm(save(root, 1), attempt)
    for step in (2, 3):
        do_step(attempt, step, "first")
    second, third = tmp_path / "2", tmp_path / "3"
    checkpoints.restore(root / "global_step_1", second)
    do_step(second, 2, "second")
    checkpoints.confirm(save(root, 2), second)
    checkpoints.restore(root / "global_step_2", third)
    files = sorted((third / records.INFLUENCE_DIR).iterdir())
    assert [file.read_text() for file in files] == ["first 1", "second 2"]


def test_a_job_without_scores_or_metrics_has_checkpoints_too(root: Path, attempt: Path) -> None:
    attempt.mkdir()
    checkpoints.confirm(save(root, 4), attempt)
    assert checkpoints.restore(root / "global_step_4", attempt) == []


def test_a_checkpoint_made_elsewhere_restores_nothing(root: Path, attempt: Path) -> None:
    assert checkpoints.restore(save(root, 4), attempt) == []


def test_a_folder_that_is_no_checkpoint_is_refused_and_left_alone(root: Path, attempt: Path) -> None:
    other = root / "global_step_final"
    other.mkdir(parents=True)
    with pytest.raises(ValueError, match="is no checkpoint"):
        checkpoints.confirm(other, attempt)
    do_step(attempt, 1)
    checkpoints.confirm(save(root, 1), attempt, keep=1)
    assert other.exists()


@pytest.mark.parametrize(("keep", "left"), [(None, {1, 2, 3, 5}), (1, {5}), (2, {3, 5}), (0, {5})])
def test_older_ones_go_and_so_do_halves(root: Path, attempt: Path, keep: int | None, left: set[int]) -> None:
    for step in (1, 2, 3):
        do_step(attempt, step)
        checkpoints.confirm(save(root, step), attempt)
    half = save(root, 7)
    do_step(attempt, 5)
    checkpoints.confirm(save(root, 5), attempt, keep=keep)
    assert {step for step in (1, 2, 3, 5) if checkpoints.folder_of(root, step).exists()} == left
    assert half.exists() == (keep is None)


def test_a_job_that_went_back_keeps_what_it_has_just_saved(root: Path, attempt: Path) -> None:
    for step in (2, 5):
        do_step(attempt, step)
        checkpoints.confirm(save(root, step), attempt)
    for step in (3, 4):  # resumed by path from step 2
        checkpoints.confirm(save(root, step), attempt, keep=1)
        assert (checkpoints.folder_of(root, step) / "actor" / "model.pt").exists()
    assert {folder.name for folder in root.iterdir()} == {"global_step_4", "global_step_5"}


def test_checkpoints_made_elsewhere_are_neither_taken_up_nor_removed(root: Path, attempt: Path) -> None:
    foreign = root / "global_step_9"
    (foreign / "actor").mkdir(parents=True)
    do_step(attempt, 1)
    checkpoints.confirm(save(root, 1), attempt, keep=1)
    assert checkpoints.newest(root) == root / "global_step_1"
    checkpoints.discard(root)
    assert checkpoints.newest(root) is None
    assert [folder.name for folder in root.iterdir()] == [foreign.name]


DYING = """
import os, sys
from pathlib import Path
from trainer_ext import checkpoints

def die_in_time(event, arguments):
    global calls
    if event == "open" or event.startswith(("os.", "shutil.")):
        calls -= 1
        if calls < 0:
            os._exit(9)

for calls, case in enumerate(sys.argv[1:]):
    child = os.fork()
    if not child:
        sys.addaudithook(die_in_time)
        checkpoints.confirm(Path(case, "checkpoints/global_step_2"), Path(case, "1"), keep=1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Confirms a checkpoint in every folder, and dies in the n-th, as by SIGKILL, before its n-th touch of the file system."""
CASES = 60


def test_dying_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    cases = [tmp_path / f"{case:02d}" for case in range(CASES)]
    for case in cases:
        do_step(case / "1", 1)
        checkpoints.confirm(save(case / "checkpoints", 1), case / "1", keep=1)
        do_step(case / "1", 2)
        save(case / "checkpoints", 2)
    run = subprocess.run([sys.executable, "-c", DYING, *map(str, cases)], capture_output=True, text=True, check=True)
    codes = [int(word) for word in run.stdout.split()]
    assert codes == sorted(codes, reverse=True)
    assert 20 < codes.count(9) < CASES, "too few moments for this to mean anything"
    seen = set()
    for case in cases:
        newest = checkpoints.newest(case / "checkpoints")
        assert newest is not None, case
        step = checkpoints.step_of(newest) or 0
        seen.add(step)
        assert (newest / "actor" / "model.pt").read_text() == f"weights {step}"
        assert [row["step"] for row in checkpoints.restore(newest, case / "2")] == list(range(1, step + 1))
        assert len(list((case / "2" / records.INFLUENCE_DIR).iterdir())) == step
        checkpoints.confirm(save(case / "checkpoints", 2), case / "1", keep=1)  # the next attempt does the step again
        assert [folder.name for folder in (case / "checkpoints").iterdir()] == ["global_step_2"]
    assert seen == {1, 2}
