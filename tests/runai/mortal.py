"""An orchestrator that kills itself after its next step: `python -m tests.runai.mortal SPEC ROOT [STEP ...]`.

A step changes something: a row of the store, or by a request the control plane. SIGKILL comes when it has had its effect and
before anybody learns of it. Run again and again, every step of the protocol is the last one of some process; where none of
the STEPs is left to do the exit code is 0.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from orchestrator.backends.runai.backend import RunaiBackend
from orchestrator.backends.runai.observation import Patience
from orchestrator.clock import SystemClock
from orchestrator.launch import Site
from orchestrator.ledger import View
from orchestrator.loop import Drive
from orchestrator.paths import RootPaths
from orchestrator.planning import limits, plan_sweep, retry_rules
from orchestrator.session import register
from orchestrator.store import Store
from tests.orchestrator.driving import Logged

PATIENCE = Patience(settle_s=1.0, visible_s=3.0, completing_s=6.0, ask_again_s=2.0)


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


class MortalTransport(httpx.HTTPTransport):
    """Lets one request pass."""

    def __init__(self, steps: Collection[str]) -> None:
        super().__init__()
        self._steps = steps

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.method in self._steps and not request.url.path.endswith("/token"):
            response.read()
            die(request.method)
        return response


def drive(spec_path: Path, root: Path, steps: Collection[str] = ()) -> View:
    """A sweep from its file to its end, or to the end of this process after one of the steps."""
    clock, paths = SystemClock(), RootPaths(root)
    planned = plan_sweep(spec_path, [], None, None)
    store = Store.open(paths.database, clock)
    name = register(planned, store, spec_path, sys.argv, clock.now())
    return Drive(
        sweep=name,
        spec=planned.spec,
        store=MortalStore(store, steps),  # type: ignore[arg-type]
        backend=RunaiBackend.of(planned.spec.runai, os.environ, transport=MortalTransport(steps), patience=PATIENCE),
        logger=Logged(),
        clock=clock,
        site=Site(paths, sys.executable),
        limits=limits(planned.spec, planned.target),
        rules=retry_rules(planned.spec),
        pools=planned.target.pools,
        ladder=planned.target.ladder,
        poll_s=0.1,
        warn=print,
    ).run(lambda _view: None)


if __name__ == "__main__":
    drive(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
