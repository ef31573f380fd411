"""An orchestrator that kills itself after its next step.

A step changes something: a row of the store, or outside of it what a backend asks for. SIGKILL comes when it has had its effect
and before anybody learns of it. Run again and again, every step of the protocol is the last one of some process.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.backends.base import Backend
from orchestrator.clock import SystemClock
from orchestrator.launch import Site
from orchestrator.ledger import View
from orchestrator.loop import Drive
from orchestrator.paths import RootPaths
from orchestrator.planning import limits, plan_sweep, retry_rules
from orchestrator.session import register
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from tests.orchestrator.driving import Logged


def die(step: str) -> None:
    print(step, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class MortalStore:
    """Lets one change pass."""

    store: Store
    steps: Collection[str]

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.store, name)
        if name not in self.steps:
            return value

        def call(*arguments: Any, **named: Any) -> None:
            value(*arguments, **named)
            die(name)

        return call


def drive(
    spec_path: Path, root: Path, steps: Collection[str], backend: Callable[[SweepSpec], Backend], poll_s: float
) -> View:
    """A sweep from its file to its end, or to the end of this process after one of the steps."""
    clock, paths = SystemClock(), RootPaths(root)
    planned = plan_sweep(spec_path, [], None, None)
    store = Store.open(paths.database, clock)
    name = register(planned, store, spec_path, sys.argv, clock.now())
    return Drive(
        sweep=name,
        spec=planned.spec,
        store=MortalStore(store, steps),  # type: ignore[arg-type]
        backend=backend(planned.spec),
        logger=Logged(),
        clock=clock,
        site=Site(paths, sys.executable),
        limits=limits(planned.spec, planned.target),
        rules=retry_rules(planned.spec),
        pools=planned.target.pools,
        ladder=planned.target.ladder,
        poll_s=poll_s,
        warn=print,
    ).run(lambda _view: None)
