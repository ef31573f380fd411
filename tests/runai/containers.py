"""What runs in a pod: processes of this machine, ended as Kubernetes ends containers."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

KEPT = ("PATH", "HOME", "LANG", "TMPDIR")
"""Of this process's environment; a container knows nothing else of who submitted it."""
SIGNALLED = 128
CANNOT_START = 127


@dataclass(frozen=True)
class Launch:
    """One start of one container."""

    words: tuple[str, ...]
    environ: Mapping[str, str]
    folder: Path | None
    log: Path


class Container(Protocol):
    def exit_code(self) -> int | None:
        """None while it runs."""

    def terminate(self) -> None:
        """SIGTERM to the first process, as Kubernetes sends it."""

    def kill(self) -> None:
        """SIGKILL to everything in it."""


class Runtime(Protocol):
    def start(self, launch: Launch) -> Container: ...


class Processes:
    """Runs containers as processes of this machine."""

    def start(self, launch: Launch) -> Container:
        return ProcessContainer(launch)


class ProcessContainer:
    """A first process and all that come of it; they end with it, as those of a container do."""

    def __init__(self, launch: Launch) -> None:
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        environ = {**kept, **launch.environ}
        self._mark = ("HOSTNAME", environ["HOSTNAME"])
        self._code: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        launch.log.parent.mkdir(parents=True, exist_ok=True)
        with launch.log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    launch.words,
                    env=environ,
                    cwd=launch.folder if launch.folder and launch.folder.is_dir() else None,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                log.write(f"exec: {error}\n".encode())
                self._code = CANNOT_START

    def exit_code(self) -> int | None:
        if self._code is None and self._process is not None:
            code = self._process.poll()
            if code is not None:
                self._code = code if code >= 0 else SIGNALLED - code
                self._sweep()
        return self._code

    def terminate(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._sweep()
            self._process.kill()
            self._process.wait()
        self.exit_code()

    def _sweep(self) -> None:
        """End what the first process started, wherever it went since: it inherited the pod's host name."""
        name, value = self._mark
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get(name) == value:
                    process.kill()


def words_of(command: str | None, args: str | None, tokenisation: str) -> tuple[str, ...]:
    """The words that two strings stand for, under each guess at how the server splits them."""
    split = shlex.split if tokenisation == "shell" else str.split
    return tuple(word for part in (command, args) if part for word in split(part))


def environment_of(
    variables: Sequence[Mapping[str, object]], secrets: Mapping[tuple[str, str], str]
) -> tuple[dict[str, str], list[str]]:
    """The variables of a spec with secrets looked up, and the names of those whose secret is missing."""
    values: dict[str, str] = {}
    missing = []
    for variable in variables:
        name, source = str(variable["name"]), variable.get("secret")
        if isinstance(source, Mapping):
            secret = secrets.get((str(source.get("name")), str(source.get("key"))))
            if secret is None:
                missing.append(name)
            else:
                values[name] = secret
        elif variable.get("value") is not None:
            values[name] = str(variable["value"])
    return values, missing
