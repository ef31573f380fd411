"""Real repositories in a temporary folder, and a runner that answers for git where git must fail."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.git_state import Reply, read_git_state, run_command, without_credentials

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "init.defaultBranch=main", "-c", "commit.gpgsign=false", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **IDENTITY})
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    git(folder, "init")
    (folder / "train.py").write_text("print(1)\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return folder


@pytest.fixture
def cloned(repository: Path, tmp_path: Path) -> Path:
    """The same with a remote that has its commit."""
    git(tmp_path, "init", "--bare", "remote.git")
    git(repository, "remote", "add", "origin", str(tmp_path / "remote.git"))
    git(repository, "push", "-u", "origin", "main")
    return repository


def test_a_clean_repository(repository: Path) -> None:
    state = read_git_state(repository)
    assert state is not None
    assert state.commit == git(repository, "rev-parse", "HEAD")
    assert (state.branch, state.dirty, state.diff_sha256) == ("main", False, None)
    assert (state.remote, state.remote_url, state.pushed) == (None, None, None)


def test_equal_changes_have_equal_hashes_and_others_do_not(repository: Path) -> None:
    def changed(content: str) -> str | None:
        (repository / "train.py").write_text(content)
        state = read_git_state(repository)
        assert state is not None
        assert state.dirty
        return state.diff_sha256

    first, second = changed("print(2)\n"), changed("print(3)\n")
    assert first is not None
    assert first != second
    assert changed("print(2)\n") == first


def test_an_untracked_file_is_a_change(repository: Path) -> None:
    (repository / "new.yaml").write_text("a: 1\n")
    state = read_git_state(repository)
    assert state is not None
    assert state.dirty
    assert state.diff_sha256 is not None


def test_pushed_until_the_next_commit(cloned: Path) -> None:
    state = read_git_state(cloned)
    assert state is not None
    assert (state.remote, state.pushed) == ("origin", True)
    git(cloned, "commit", "--allow-empty", "-m", "second")
    later = read_git_state(cloned)
    assert later is not None
    assert later.pushed is False


def test_a_detached_head_has_no_branch(cloned: Path) -> None:
    git(cloned, "checkout", "--detach")
    state = read_git_state(cloned)
    assert state is not None
    assert (state.branch, state.remote, state.pushed) == (None, "origin", True)


def test_outside_a_repository_there_is_none(tmp_path: Path) -> None:
    assert read_git_state(tmp_path) is None


def test_before_the_first_commit_there_is_none(tmp_path: Path) -> None:
    git(tmp_path, "init")
    assert read_git_state(tmp_path) is None


def test_reading_takes_no_lock(repository: Path) -> None:
    index = repository / ".git" / "index"
    os.utime(repository / "train.py", (1, 1))  # a plain `git status` would now rewrite the index
    before = index.read_bytes()
    read_git_state(repository)
    assert index.read_bytes() == before


def test_without_git_there_is_none(tmp_path: Path) -> None:
    assert read_git_state(tmp_path, lambda _: None) is None
    assert run_command(["no-such-command-anywhere"]) is None


def test_what_takes_too_long_is_not_known(repository: Path) -> None:
    def slow_status(command: Sequence[str]) -> Reply | None:
        return None if "status" in command else run_command(command)

    state = read_git_state(repository, slow_status)
    assert state is not None
    assert (state.dirty, state.diff_sha256) == (None, None)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://user:s3cret@git.example/a/b.git", "https://git.example/a/b.git"),
        ("https://token@git.example:8443/a.git?private_token=x#y", "https://git.example:8443/a.git"),
        ("https://us%40er:p@ss@git.example/a.git", "https://git.example/a.git"),
        ("ssh://git@git.example/a.git", "ssh://git.example/a.git"),
        ("git@git.example:a/b.git", "git.example:a/b.git"),
        ("../remote.git", "../remote.git"),
        ("/srv/m@il/remote.git", "/srv/m@il/remote.git"),
    ],
)
def test_addresses_lose_their_credentials(url: str, clean: str) -> None:
    assert without_credentials(url) == clean
