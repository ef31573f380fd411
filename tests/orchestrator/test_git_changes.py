"""Real repositories in a temporary folder: what a report says about the code between two sweeps."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from orchestrator import git_changes
from orchestrator.clock import FakeClock
from orchestrator.git_changes import read_changes
from orchestrator.git_state import Reply
from orchestrator.ledger import SweepRow
from orchestrator.paths import RootPaths
from orchestrator.session import code_state
from orchestrator.snapshot import sweep_snapshot
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from reports.snapshot import FileChange

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **IDENTITY})
    return done.stdout.strip()


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-m", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def history(tmp_path: Path) -> tuple[Path, str, str]:
    """A folder in a repository, and two commits with two between them."""
    git(tmp_path, "init")
    (tmp_path / "train.py").write_text("a\nb\n")
    (tmp_path / "old.py").write_text("gone\n")
    base = commit(tmp_path, "first")
    (tmp_path / "train.py").write_text("a\nc\nd\n")
    (tmp_path / 'with "blanks"\té.md').write_text("x\n")
    commit(tmp_path, "Exclude | self\n\nA body that nobody asked for.")
    (tmp_path / "old.py").unlink()
    (tmp_path / "weights.bin").write_bytes(bytes(range(256)))
    (tmp_path / "train.py").write_text("a\nc\nd\ne\n")
    return tmp_path, base, commit(tmp_path, "third")


def test_files_come_with_their_lines_and_the_subjects_of_their_commits(history: tuple[Path, str, str]) -> None:
    folder, base, head = history
    found = read_changes(folder, base, head, "before")
    assert found is not None
    assert (found.base, found.head, found.base_sweep) == (base, head, "before")
    assert [entry.subject for entry in found.commits] == ["Exclude | self", "third"]
    assert found.commits[-1].hash == head
    assert found.files == (
        FileChange("old.py", "deleted", 0, 1, ("third",)),
        FileChange("train.py", "modified", 3, 1, ("Exclude | self", "third")),
        FileChange("weights.bin", "added", None, None, ("third",)),
        FileChange('with "blanks"\té.md', "added", 1, 0, ("Exclude | self",)),
    )


def test_a_commit_may_be_named_in_short_and_what_is_not_committed_does_not_count(
    history: tuple[Path, str, str],
) -> None:
    folder, base, head = history
    (folder / "train.py").write_text("something else\n")
    found = read_changes(folder, base[:8], "main")
    assert found == read_changes(folder, base, head)


def test_between_a_commit_and_itself_nothing_changed(history: tuple[Path, str, str]) -> None:
    folder, _, head = history
    found = read_changes(folder, head, head)
    assert found is not None
    assert (found.commits, found.files) == ((), ())


@pytest.mark.parametrize("base", ["feedface" * 5, "no-such-branch", "--output=stolen", ""])
def test_what_names_no_commit_gives_nothing(history: tuple[Path, str, str], base: str) -> None:
    folder, _, head = history
    assert read_changes(folder, base, head) is None
    assert not (folder / "stolen").exists()


def test_without_git_there_is_nothing(tmp_path: Path) -> None:
    assert read_changes(tmp_path, "a", "b", run=lambda _command: None) is None
    assert read_changes(tmp_path, "a", "b", run=lambda _command: Reply(128, b"")) is None


def test_of_very_many_files_the_first_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    git(tmp_path, "init")
    base = commit_empty(tmp_path)
    for number in range(git_changes.MOST_FILES + 3):
        (tmp_path / f"{number:04}.txt").write_text("x\n")
    found = read_changes(tmp_path, base, commit(tmp_path, "many"))
    assert found is not None
    assert (len(found.files), found.more_files) == (git_changes.MOST_FILES, 3)


def commit_empty(folder: Path) -> str:
    git(folder, "commit", "--allow-empty", "-m", "nothing")
    return git(folder, "rev-parse", "HEAD")


def test_a_sweep_knows_what_changed_since_the_sweep_before(history: tuple[Path, str, str], tmp_path: Path) -> None:
    folder, base, head = history
    store = Store.open(tmp_path / "runs" / "orchestrator.db", FakeClock())
    spec = SweepSpec.model_validate({"name": "s"}).model_dump(mode="json")
    for time, (name, commit_hash) in enumerate([("old", base), ("new", None)]):
        git = {"commit": commit_hash} if commit_hash else code_state(store, name, folder)
        store.put_sweep(SweepRow(name, "", "s.yaml", spec, "fake", None, "", git, {}, created_at=time), [])
    snapshot = sweep_snapshot(store, RootPaths(tmp_path / "runs"), "new")
    assert snapshot.changes == read_changes(folder, base, head, "old")
    assert snapshot.git is not None
    assert snapshot.git.commit == head
    assert sweep_snapshot(store, RootPaths(tmp_path / "runs"), "old").changes is None
    again = code_state(store, "old", folder)
    assert again is not None
    assert again["changes"] is None, "the newer sweep is none that ran before"
