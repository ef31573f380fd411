"""An orchestrator that kills itself after its next step: `python -m tests.slurm.mortal SPEC ROOT`.

A step is a call that changes something: a row of the store, or the cluster. SIGKILL comes when the call has had its effect
and before anybody learns of it. Run again and again, every step of the protocol is the last one of some process. Where nothing
is left to do it ends with exit code 0.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from orchestrator.clock import SystemClock
from orchestrator.launch import Site
from orchestrator.loop import Drive
from orchestrator.paths import RootPaths
from orchestrator.planning import limits, plan_sweep, retry_rules
from orchestrator.session import register
from orchestrator.store import Store
from tests.orchestrator.driving import Logged

ASKING = ("find", "poll", "pools", "view", "sweep", "config", "points", "name")
"""What changes nothing."""


class LastStep:
    """Stands before the store or the backend and lets one call pass."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name in ASKING or not callable(value):
            return value

        def call(*arguments: Any, **named: Any) -> None:
            value(*arguments, **named)
            print(name, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        return call


def main(spec_path: str, root: str) -> None:
    clock, paths = SystemClock(), RootPaths(Path(root))
    planned = plan_sweep(Path(spec_path), [], None, None)
    store = Store.open(paths.database, clock)
    name = register(planned, store, Path(spec_path), sys.argv, clock.now())
    Drive(
        sweep=name,
        spec=planned.spec,
        store=LastStep(store),
        backend=LastStep(planned.target.backend),
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


if __name__ == "__main__":
    main(*sys.argv[1:])
