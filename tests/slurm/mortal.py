"""An orchestrator that kills itself after its next step: `python -m tests.slurm.mortal SPEC ROOT [STEP ...]`.

A step changes something: a row of the store, or by one of Slurm's commands the cluster. SIGKILL comes when it has had its
effect and before anybody learns of it. Run again and again, every step of the protocol is the last one of some process; where
none of the STEPs is left to do the exit code is 0.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.backends.slurm.backend import SlurmBackend
from orchestrator.backends.slurm.commands import ASK_TIMEOUT_S, Reply, run_command
from orchestrator.clock import SystemClock
from orchestrator.launch import Site
from orchestrator.loop import Drive
from orchestrator.paths import RootPaths
from orchestrator.planning import limits, plan_sweep, retry_rules
from orchestrator.session import register
from orchestrator.store import Store
from tests.e2e.sweeping import ROOT
from tests.orchestrator.driving import Logged
from tests.slurm.scenarios import PATIENCE_S, Stage

CHANGES = ("start_attempt", "move_attempt", "move_point")
"""Of the store."""
COMMANDS = ("sbatch", "scancel", "hold", "requeuehold", "update", "release")
"""Of Slurm, those that change something; the last four are words of scontrol."""


def die(step: str) -> None:
    print(step, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


class MortalStore:
    """Lets one change pass."""

    def __init__(self, store: Store, steps: Collection[str]) -> None:
        self._store, self._steps = store, steps

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if name not in self._steps:
            return value

        def call(*arguments: Any, **named: Any) -> None:
            value(*arguments, **named)
            die(name)

        return call


@dataclass(frozen=True)
class MortalRunner:
    """Lets one command pass."""

    steps: Collection[str]

    def __call__(self, command: Sequence[str], timeout_s: float = ASK_TIMEOUT_S) -> Reply:
        reply = run_command(command, timeout_s)
        for step in set(command[:2]) & set(self.steps):
            die(step)
        return reply


def main(spec_path: str, root: str, *steps: str) -> None:
    clock, paths = SystemClock(), RootPaths(Path(root))
    planned = plan_sweep(Path(spec_path), [], None, None)
    store = Store.open(paths.database, clock)
    name = register(planned, store, Path(spec_path), sys.argv, clock.now())
    Drive(
        sweep=name,
        spec=planned.spec,
        store=MortalStore(store, steps),  # type: ignore[arg-type]
        backend=SlurmBackend(MortalRunner(steps)),
        logger=Logged(),
        clock=clock,
        site=Site(paths, sys.executable),
        limits=limits(planned.spec, planned.target),
        rules=retry_rules(planned.spec),
        pools=planned.target.pools,
        ladder=planned.target.ladder,
        poll_s=0.2,
        warn=print,
    ).run(lambda _view: None)


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
    main(*sys.argv[1:])
