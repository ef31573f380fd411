"""A sweep on the fake cluster, driven without waiting, that may die at any call into the store or the backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.backends.fake import FakeBackend, FakeCluster, Script
from orchestrator.clock import FakeClock
from orchestrator.identity import point_hash, point_id
from orchestrator.launch import Site
from orchestrator.ledger import AttemptRow, PointRow, SweepRow, View
from orchestrator.loop import Drive
from orchestrator.model import Point, Pool
from orchestrator.paths import RootPaths
from orchestrator.plan import Limits
from orchestrator.planning import retry_rules
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store

POOLS = {"h100": Pool("h100", 8, 81_559), "h200": Pool("h200", 8, 143_771)}


class Died(BaseException):
    """The orchestrator's process is gone: nothing may catch this."""


class Mortal:
    """Stands before an object and dies before or after one call, as SIGKILL would."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            self._fuse.burn()
            result = value(*arguments, **named)
            self._fuse.burn()
            return result

        return call


@dataclass
class Fuse:
    """Counts down calls; -1 never burns out."""

    left: int = -1

    def burn(self) -> None:
        if self.left == 0:
            raise Died
        self.left -= 1


@dataclass
class Logged:
    """A sink that remembers what it was told last, and how often."""

    states: dict[str, str] = field(default_factory=dict)

    def log(self, point: PointRow, history: Sequence[AttemptRow]) -> None:
        assert history
        self.states[point.id] = point.state.value


@dataclass
class Rehearsal:
    """One state folder and one fake cluster; `drive` may be called again after it died."""

    root: Path
    script: Script
    points: int = 2
    spec: SweepSpec = field(
        default_factory=lambda: SweepSpec.model_validate({"name": "s", "budget": {"max_parallel": 2}})
    )
    clock: FakeClock = field(default_factory=FakeClock)
    logged: Logged = field(default_factory=Logged)
    warnings: list[str] = field(default_factory=list)
    backend: Callable[[FakeCluster], FakeBackend] = FakeBackend
    ladder: tuple[str, ...] = tuple(POOLS)
    poll_s: float = 0.25

    def __post_init__(self) -> None:
        self.cluster = FakeCluster(self.script, self.clock, tuple(POOLS.values()))
        self.paths = RootPaths(self.root)
        self.store = Store.open(self.paths.database, self.clock)
        self.planned = [point(index) for index in range(self.points)]
        self.put(self.planned)

    def put(self, wanted: Sequence[Point]) -> None:
        """Register the sweep with these points, as a sweep file would."""
        spec = self.spec.model_dump(mode="json")
        now = self.clock.now()
        self.store.put_sweep(SweepRow("s", "", "s.yaml", spec, "fake", None, "", None, {}, created_at=now), wanted)

    def drive(
        self,
        die_after: int = -1,
        observe: Callable[[View], None] = lambda _view: None,
        announce: Callable[[View], None] = lambda _view: None,
    ) -> View:
        """Run to the end, or raise `Died` at one of the calls into the store or the cluster."""
        fuse = Fuse(die_after)
        return Drive(
            sweep="s",
            spec=self.spec,
            store=Mortal(self.store, fuse),
            backend=Mortal(self.backend(self.cluster), fuse),
            logger=self.logged,
            clock=self.clock,
            site=Site(self.paths, "python"),
            limits=Limits(
                self.spec.budget.max_parallel,
                gpus_per_attempt=8,
                gpu_hours=self.spec.budget.gpu_hours,
                time_limit_s=self.spec.resources.time_s,
                ladder=tuple(POOLS[name] for name in self.ladder),
            ),
            rules=retry_rules(self.spec),
            pools=POOLS,
            ladder=self.ladder,
            poll_s=self.poll_s,
            warn=self.warnings.append,
            announce=announce,
            random=lambda: 0.5,
        ).run(observe)


def point(index: int) -> Point:
    config = {
        "x": index,
        "job": {"command": ["{python}", "job.py"], "expected": {"steps": 2, "npz": "influence/step_*.npz"}},
    }
    full = point_hash(config)
    return Point(point_id(full), index, f"point-{index}", {"x": index}, {}, (f"x={index}",), config, full)
