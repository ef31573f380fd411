"""Containers of the double: what they know, how they are ended, and that nothing of them outlives them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.sweeping import wait_for
from tests.runai.containers import CANNOT_START, SIGNALLED, Launch, ProcessContainer, environment_of, words_of

PATIENCE_S = 20.0


def start(folder: Path, *words: str, **environ: str) -> ProcessContainer:
    return ProcessContainer(Launch(words, {"HOSTNAME": folder.name, **environ}, None, folder / "log"))


def test_a_container_knows_what_it_is_told_and_nothing_of_this_process(tmp_path: Path) -> None:
    assert "PYTEST_CURRENT_TEST" in os.environ
    container = start(tmp_path, sys.executable, "-c", "import os; print(sorted(os.environ))", TOLD="1")
    wait_for(lambda: container.exit_code() is not None, PATIENCE_S)
    said = (tmp_path / "log").read_text()
    assert "TOLD" in said
    assert "PYTEST_CURRENT_TEST" not in said


def test_what_a_container_started_ends_with_it_wherever_it_went(tmp_path: Path) -> None:
    container = start(tmp_path, "/bin/sh", "-c", f"setsid sleep 60 & echo $! > {tmp_path}/pid; sleep 0.2")
    wait_for(lambda: container.exit_code() == 0, PATIENCE_S)
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, PATIENCE_S)


def test_the_exit_code_of_a_signal_is_that_of_kubernetes(tmp_path: Path) -> None:
    container = start(tmp_path, "sleep", "60")
    assert container.exit_code() is None
    container.terminate()
    wait_for(lambda: container.exit_code() == SIGNALLED + 15, PATIENCE_S)
    killed = start(tmp_path, "sleep", "60")
    killed.kill()
    assert killed.exit_code() == SIGNALLED + 9


def test_a_command_that_is_not_there_fails_with_a_word_in_the_log(tmp_path: Path) -> None:
    container = start(tmp_path, "/no/such/command")
    assert container.exit_code() == CANNOT_START
    assert "No such file" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("tokenisation", "words"),
    [("shell", ("/bin/sh", "-c", "echo 1")), ("spaces", ("/bin/sh", "-c", "'echo", "1'"))],
)
def test_command_and_args_become_words_in_either_way(tokenisation: str, words: tuple[str, ...]) -> None:
    assert words_of("/bin/sh", "-c 'echo 1'", tokenisation) == words


def test_secrets_are_looked_up_and_missing_ones_are_named() -> None:
    variables = [
        {"name": "PLAIN", "value": "1"},
        {"name": "KEY", "secret": {"name": "wandb", "key": "API_KEY"}},
        {"name": "NONE", "secret": {"name": "wandb", "key": "OTHER"}},
    ]
    found = environment_of(variables, {("wandb", "API_KEY"): "k"})
    assert found == ({"PLAIN": "1", "KEY": "k"}, ["NONE"])
