"""Running Slurm's commands: each call has a time limit, an environment without a job's leftovers, and an answer as text."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import Unobservable

ASK_TIMEOUT_S = 60.0
"""A controller that is down lets its clients wait for MessageTimeout, 10 to 30 s as a rule."""
_KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS"})


@dataclass(frozen=True)
class Reply:
    """How a command ended."""

    code: int
    out: str = ""
    err: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def complaint(self) -> str:
        """What the command said on stderr, in one line."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        return "; ".join(lines) or f"exit code {self.code}"


class CommandTimeout(Exception):
    """The command did not end in time and was killed; what it asked for may have happened."""


class CommandRunner(Protocol):
    def __call__(self, command: Sequence[str], timeout_s: float = ASK_TIMEOUT_S) -> Reply:
        """Run a command to its end.

        Raises:
            CommandTimeout: it took longer than `timeout_s` seconds.
        """


def run_command(command: Sequence[str], timeout_s: float = ASK_TIMEOUT_S) -> Reply:
    """The `CommandRunner` that really runs something; exit code 127 where there is no such command."""
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env=client_environment(os.environ),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandTimeout(f"{command[0]} did not answer within {timeout_s:g} s") from error
    except OSError as error:
        return Reply(127, err=f"cannot run {command[0]}: {error.strerror}; Slurm's commands are on a login node")
    return Reply(ended.returncode, ended.stdout, ended.stderr)


def client_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Ours, without the variables that would override what we ask for: SBATCH_*, and SLURM_* of a job we may run in."""
    kept = {
        name: value
        for name, value in inherited.items()
        if name in _KEPT or not name.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SRUN_"))
    }
    return {**kept, "LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"}


def ask(run: CommandRunner, command: Sequence[str]) -> str:
    """The output of a question.

    Raises:
        Unobservable: no answer, for whatever reason.
    """
    try:
        reply = run(command)
    except CommandTimeout as error:
        raise Unobservable(str(error)) from error
    if not reply.ok:
        raise Unobservable(f"{command[0]}: {reply.complaint}")
    return reply.out
