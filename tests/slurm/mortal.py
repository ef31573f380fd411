"""`python -m tests.slurm.mortal SPEC ROOT [STEP ...]`: a mortal orchestrator; a step is a command of Slurm too.

Where none of the STEPs is left to do the exit code is 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.backends.slurm.backend import SlurmBackend
from orchestrator.backends.slurm.commands import ASK_TIMEOUT_S, Reply, run_command
from tests.e2e.mortal import die, drive
from tests.e2e.sweeping import ROOT
from tests.slurm.scenarios import PATIENCE_S, Stage

CHANGES = ("start_attempt", "move_attempt", "move_point")
"""Of the store."""
COMMANDS = ("sbatch", "scancel", "hold", "requeuehold", "update", "release")
"""Of Slurm, those that change something; the last four are words of scontrol."""


@dataclass(frozen=True)
class MortalRunner:
    """Lets one command pass."""

    steps: Collection[str]

    def __call__(self, command: Sequence[str], timeout_s: float = ASK_TIMEOUT_S) -> Reply:
        reply = run_command(command, timeout_s)
        for step in set(command[:2]) & set(self.steps):
            die(step)
        return reply


def live(stage: Stage, spec: Path, deadly: Collection[str]) -> subprocess.CompletedProcess[str]:
    """One life, as a process; it says after which step it died."""
    return subprocess.run(
        [sys.executable, "-m", "tests.slurm.mortal", str(spec), str(stage.product.root), *deadly],
        cwd=ROOT,
        env={**os.environ, **stage.cluster.environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


if __name__ == "__main__":
    deadly = sys.argv[3:]
    drive(Path(sys.argv[1]), Path(sys.argv[2]), deadly, lambda _spec: SlurmBackend(MortalRunner(deadly)), poll_s=0.2)
