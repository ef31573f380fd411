"""A sweep through the Run:ai backend on an imagined control plane: the whole loop, the real client, and no waiting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx

from orchestrator.backends.fake import Play, always
from orchestrator.backends.runai.backend import RunaiBackend
from orchestrator.backends.runai.client import Timeouts
from orchestrator.backends.runai.observation import Patience
from orchestrator.clock import FakeClock
from orchestrator.ledger import View
from orchestrator.runai_spec import RunaiSpec
from orchestrator.spec_model import SweepSpec
from tests.orchestrator.driving import Fuse, Rehearsal
from tests.runai.imaginary import Act, Stagehand
from tests.runai.knobs import Knobs
from tests.runai.server import InProcess, imagined

TIMEOUTS = Timeouts(connect_s=2.0, read_s=5.0)
PATIENCE = Patience(settle_s=1.5, visible_s=2.0, completing_s=4.0, ask_again_s=2.0)
MOST_TICKS = 2_000
"""Of one life of the orchestrator; the longest sweep here takes a tenth of it."""
URL = "http://control-plane.invalid"


@dataclass
class MortalTransport(httpx.BaseTransport):
    """Dies before or after a request has reached the control plane."""

    inner: InProcess
    fuse: Fuse

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.fuse.burn()
        try:
            return self.inner.handle_request(request)
        finally:
            self.fuse.burn()


@dataclass
class Stage:
    """One state folder, one control plane, one sweep of fake points; `drive` may be called again after it died.

    Args:
        root: the state folder; on a file system in memory this is much faster.
        script: (attempt folder, pool) -> what a job does.
    """

    root: Path
    script: Callable[[Path, str], Act] = lambda _folder, _pool: Act()
    knobs: Knobs = field(default_factory=Knobs)
    points: int = 1
    gpus: int = 8
    clock: FakeClock = field(default_factory=FakeClock)
    requests_left: Fuse = field(default_factory=Fuse)
    """Requests until the orchestrator dies."""

    def __post_init__(self) -> None:
        self.jobs = Stagehand(self.clock, self.script)
        self.plane = imagined(self.root / "containers", self.clock, knobs=self.knobs, runtime=self.jobs)
        self.transport = InProcess(self.plane)
        self.rehearsal = Rehearsal(
            self.root,
            always(Play()),
            points=self.points,
            spec=SweepSpec.model_validate(
                {
                    "name": "s",
                    "budget": {"max_parallel": 2},
                    "resources": {"gpus": self.gpus},
                    "retry": {"backoff": {"base": 0.1}},
                }
            ),
            clock=self.clock,
            backend=lambda _cluster: self.client(),  # type: ignore[arg-type, return-value]
        )

    def client(self) -> RunaiBackend:
        """A backend as a newly started orchestrator has it."""
        return RunaiBackend.of(
            RunaiSpec(),
            {**self.plane.environ(URL), "RUNAI_IMAGE": "any", "RUNAI_PYTHON": "python"},
            clock=self.clock,
            transport=MortalTransport(self.transport, self.requests_left),
            timeouts=TIMEOUTS,
            patience=PATIENCE,
        )

    def drive(self, die_after: int = -1, observe: Callable[[View], None] = lambda _view: None) -> View:
        """To the end of the sweep, or of the orchestrator."""
        ticks = count()

        def watch(view: View) -> None:
            assert next(ticks) < MOST_TICKS, f"the sweep comes to no end: {self.rehearsal.warnings[-3:]}"
            observe(view)

        return self.rehearsal.drive(die_after, watch)

    def runs(self, view: View) -> dict[str, list[tuple[str | None, str]]]:
        """Point -> (pool, verdict) of its attempts."""
        return {
            point.name: [(attempt.pool, str(attempt.verdict)) for attempt in view.history(point)]
            for point in view.points
        }

    def duplicates(self) -> dict[str, int]:
        """Token -> workloads made for it, where that is more than one."""
        made: dict[str, int] = {}
        for workload in self.plane.workloads.values():
            token = workload.environment.get("ORCHESTRATOR_ATTEMPT_TOKEN")
            if token is not None:
                made[token] = made.get(token, 0) + 1
        return {token: count for token, count in made.items() if count > 1}

    def check(self) -> None:
        """What holds after every run."""
        assert self.transport.api.dishonest == []
        assert self.duplicates() == {}
        assert all(count == 1 for count in self.jobs.finished.values())


def requests(stage: Stage, method: str, words: str = "") -> list[str]:
    """Paths of the requests that were made."""
    return [path for verb, path in stage.transport.api.seen if verb == method and words in path]
