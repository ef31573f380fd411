"""Daemons that are found again, and ended, by pid and start time."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

    def _file(self, name: str) -> Path:
        return self.folder / "pids" / name

    def start(self, name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start it unless it runs. It stays in the foreground of a session of its own."""
        if self.running(name):
            return
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
        started_at = psutil.Process(process.pid).create_time()
        self._file(name).write_text(json.dumps({"pid": process.pid, "started_at": started_at}))

    def running(self, name: str) -> bool:
        return self.process(name) is not None

    def process(self, name: str) -> psutil.Process | None:
        """A zombie counts as gone: a process 1 that reaps nothing keeps it for ever."""
        try:
            record = json.loads(self._file(name).read_text())
            process = psutil.Process(record["pid"])
            same = abs(process.create_time() - record["started_at"]) < 1
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (FileNotFoundError, ValueError, psutil.Error):
            return None

    def stop(self, name: str) -> None:
        process = self.process(name)
        if process is not None:
            end([process])
        self._file(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        pids = self.folder / "pids"
        return sorted(path.name for path in pids.iterdir()) if pids.exists() else []


def end(processes: Sequence[psutil.Process], patience_s: float = STOP_S) -> None:
    """SIGTERM, and SIGKILL to what is left after a while."""
    for process in processes:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=patience_s)
    for process in alive:
        _signal(process.kill)
    psutil.wait_procs(alive, timeout=patience_s)


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return
