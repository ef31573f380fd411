"""Daemons that are found again, and ended, by pid and start time."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

STOP_S = 10.0
START_S = 40.0


def wait_until(condition: Callable[[], bool], what: str, patience_s: float = START_S) -> None:
    """
    Raises:
        RuntimeError: it did not come true in time.
    """
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {patience_s:.0f} s in vain: {what}")
        time.sleep(0.1)


@dataclass(frozen=True)
class Daemons:
    """The daemons of one folder; each has a file `pids/NAME`, which any later process can read."""

    folder: Path
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """Those that this process started: it has to reap them."""

    def _file(self, name: str) -> Path:
        return self.folder / "pids" / name

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start it unless it runs. It stays in the foreground of a session of its own."""
        if self.running(name):
            return
        self.stop(name)  # reaps one that crashed
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=dict(environ),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children[name] = process
        started_at = psutil.Process(process.pid).create_time()
        self._file(name).write_text(json.dumps({"pid": process.pid, "started_at": started_at}))

    def running(self, name: str) -> bool:
        return self.process(name) is not None

    def process(self, name: str) -> psutil.Process | None:
        try:
            record = json.loads(self._file(name).read_text())
            process = psutil.Process(record["pid"])
            same = abs(process.create_time() - record["started_at"]) < 1
            return process if same and not gone(process) else None
        except (FileNotFoundError, ValueError, psutil.Error):
            return None

    def stop(self, *names: str) -> None:
        """All of them at once."""
        end([process for name in names if (process := self.process(name))])
        for name in names:
            if name in self._children:
                self._children.pop(name).wait()
            self._file(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        pids = self.folder / "pids"
        return sorted(path.name for path in pids.iterdir()) if pids.exists() else []


def gone(process: psutil.Process) -> bool:
    """A zombie counts as gone: a process 1 that is slow to reap keeps it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end(processes: Sequence[psutil.Process], patience_s: float = STOP_S) -> None:
    """SIGTERM, and SIGKILL to what is left after a while."""
    for process in processes:
        _send(process, signal.SIGTERM)
    try:
        wait_until(lambda: all(gone(process) for process in processes), "daemons end", patience_s)
    except RuntimeError:
        kill(processes)


def kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        _send(process, signal.SIGKILL)
    wait_until(lambda: all(gone(process) for process in processes), "killed processes are gone", STOP_S)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
