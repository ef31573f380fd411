"""Where every process of a hanging job stands, written down before it is ended: `stacks.txt`.

py-spy reads a process from outside, where the node has it and allows it. Python processes that it cannot read are asked with
SIGUSR1, if they answer to it (`trainer_ext.stacks` makes them): their answer goes to their own standard error, so to
console.log or to Ray's logs. The kernel's word on what a process waits for is there for all of them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import psutil

BUDGET_S = 30.0
"""For all processes together. A scheduler that ends the job meanwhile kills it in about as long."""
ONE_S = 5.0
ANSWER_S = 1.0
"""How long an answer to SIGUSR1 may take to be printed."""
PROC = Path("/proc")

Run = Callable[[list[str], float], str]
"""(command, seconds) -> its output; raises OSError or subprocess.SubprocessError where there is none."""


def find_py_spy(environ: Mapping[str, str] = os.environ, python: str = sys.executable) -> str | None:
    """The program, on the path or beside the interpreter."""
    beside = Path(python).parent / "py-spy"
    return shutil.which("py-spy", path=environ.get("PATH")) or (str(beside) if os.access(beside, os.X_OK) else None)


def run_command(command: list[str], timeout_s: float) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=True, errors="replace")
    return done.stdout


def write_stacks(
    path: Path,
    why: str,
    processes: Iterable[psutil.Process],
    *,
    py_spy: str | None,
    run: Run = run_command,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write the file. Python processes first, those that worked most before others; stops when the time is up.

    Args:
        why: the first line.
        processes: of the job.
        py_spy: the program, or None.

    Raises:
        OSError: the file cannot be written.
    """
    give_up_at = monotonic() + BUDGET_S
    asked = False
    with path.open("a") as file:
        file.write(f"{why}\n")
        for process in sorted(processes, key=_by_interest):
            if monotonic() >= give_up_at:
                file.write("\n== no time for more\n")
                break
            try:
                file.write(f"\n== {_headline(process)}\n")
                asked |= _write_one(file, process, py_spy, run)
            except psutil.Error:
                file.write("== it ended meanwhile\n")
    if asked:
        sleep(ANSWER_S)


def _write_one(file: TextIO, process: psutil.Process, py_spy: str | None, run: Run) -> bool:
    """One Python process's stack; True when it was asked with SIGUSR1."""
    if not _is_python(process):
        return False
    problem = "py-spy is not installed"
    if py_spy is not None:
        try:
            file.write(run([py_spy, "dump", "--pid", str(process.pid)], ONE_S))
            return False
        except (OSError, subprocess.SubprocessError) as error:
            problem = f"py-spy cannot read it: {_said(error)}"
    file.write(f"{problem}\n")
    if not catches(process.pid, signal.SIGUSR1):
        return False
    process.send_signal(signal.SIGUSR1)
    file.write("asked with SIGUSR1: its answer is in the output of the process\n")
    return True


def catches(pid: int, number: int, proc: Path = PROC) -> bool:
    """Whether a process has a handler for a signal; without one, SIGUSR1 would kill it."""
    try:
        lines = (proc / str(pid) / "status").read_text().splitlines()
        caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (number - 1) & 1)
    except (OSError, StopIteration, ValueError, IndexError):
        return False


def _by_interest(process: psutil.Process) -> tuple[bool, float]:
    with suppress(psutil.Error):
        times = process.cpu_times()
        return not _is_python(process), -(times.user + times.system)
    return True, 0.0


def _is_python(process: psutil.Process) -> bool:
    """By its program or its title: Ray's workers call themselves `ray::...`."""
    with suppress(psutil.Error):
        words = process.cmdline()
        name = os.path.basename(words[0]) if words else process.name()
        return name.startswith(("python", "ray::"))
    return False


def _headline(process: psutil.Process) -> str:
    with process.oneshot():
        times = process.cpu_times()
        words = " ".join(process.cmdline())[:200] or process.name()
        cpu = times.user + times.system
        return f"process {process.pid}: {words} ({process.status()}, {cpu:.1f} s of CPU, waits in {_wait(process.pid)})"


def _wait(pid: int, proc: Path = PROC) -> str:
    """The kernel function that the main thread waits in."""
    try:
        return (proc / str(pid) / "wchan").read_text().strip("\0\n ") or "?"
    except OSError:
        return "?"


def _said(error: BaseException) -> str:
    stderr = getattr(error, "stderr", None)
    text = stderr.decode(errors="replace") if isinstance(stderr, bytes) else stderr
    return " ".join((text or str(error)).split())[:200]
