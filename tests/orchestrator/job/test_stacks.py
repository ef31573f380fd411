"""The stacks of a job's processes: with py-spy, without it, and where it may not read."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.job.stacks import BUDGET_S, catches, find_py_spy, write_stacks

ANSWERS = """
import time
from trainer_ext.stacks import answer_with_stacks
answer_with_stacks()
def stands_here():
    print("ready", flush=True)
    time.sleep(600)
stands_here()
"""
DEAF = "import time; print('ready', flush=True); time.sleep(600)"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[object]:
    """start(code): a Python process that has printed a line; its standard error goes to `err`."""
    started: list[subprocess.Popen[bytes]] = []

    def run(code: str) -> psutil.Process:
        with (tmp_path / "err").open("wb") as err:
            process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=err)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline()
        return psutil.Process(process.pid)

    yield run
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def refused(command: list[str], _timeout_s: float) -> str:
    raise subprocess.CalledProcessError(1, command, stderr="Permission Denied")


def test_what_py_spy_reads_is_written_process_by_process(start, tmp_path):
    file, process = tmp_path / "stacks.txt", start(DEAF)
    write_stacks(file, "why", [process], py_spy="/x/py-spy", run=lambda command, _timeout_s: " ".join(command) + "\n")
    written = file.read_text()
    assert written.startswith(f"why\n\n== process {process.pid}: ")
    assert f"/x/py-spy dump --pid {process.pid}\n" in written
    assert "s of CPU, waits in" in written


def test_a_process_that_py_spy_may_not_read_answers_by_itself(start, tmp_path):
    file, process = tmp_path / "stacks.txt", start(ANSWERS)
    write_stacks(file, "why", [process], py_spy="/x/py-spy", run=refused)
    assert "py-spy cannot read it: Permission Denied" in file.read_text()
    assert "asked with SIGUSR1" in file.read_text()
    assert "stands_here" in (tmp_path / "err").read_text()
    assert process.is_running()


def test_a_process_without_a_handler_is_not_killed_by_the_question(start, tmp_path):
    file, process = tmp_path / "stacks.txt", start(DEAF)
    write_stacks(file, "why", [process], py_spy=None)
    assert "py-spy is not installed" in file.read_text()
    assert "asked" not in file.read_text()
    time.sleep(0.05)
    assert process.status() != psutil.STATUS_ZOMBIE


def test_handlers_are_read_from_the_kernel(start):
    assert catches(start(ANSWERS).pid, signal.SIGUSR1)
    assert not catches(start(DEAF).pid, signal.SIGUSR1)
    assert not catches(2**22 + 1, signal.SIGUSR1), "no such process"


def test_time_that_is_up_leaves_the_rest_out(start, tmp_path):
    file = tmp_path / "stacks.txt"
    clock = iter([0.0, 1.0, BUDGET_S + 1.0])
    processes = [start(DEAF), start(DEAF)]
    write_stacks(file, "why", processes, py_spy="x", run=lambda _c, _t: "stack\n", monotonic=lambda: next(clock))
    assert file.read_text().count("stack\n") == 1
    assert "no time for more" in file.read_text()


def test_py_spy_is_found_on_the_path_or_beside_the_interpreter(tmp_path):
    program = tmp_path / "bin" / "py-spy"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    assert find_py_spy({"PATH": "/nowhere"}, str(tmp_path / "bin" / "python")) is None
    program.chmod(0o755)
    assert find_py_spy({"PATH": "/nowhere"}, str(tmp_path / "bin" / "python")) == str(program)
    assert find_py_spy({"PATH": str(program.parent)}, "/usr/bin/python") == str(program)
