"""A search on the fake cluster whose jobs give a known function of their parameters; it may die at any call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.backends.base import JobRef, JobRequest, JobState, JobStatus
from orchestrator.backends.fake import FakeBackend, FakeCluster, Play, Script
from orchestrator.backends.fake_files import write_outcome
from orchestrator.clock import FakeClock
from orchestrator.expand import RawPoint
from orchestrator.identity import point_hash, point_id
from orchestrator.launch import Site
from orchestrator.ledger import SweepRow, View
from orchestrator.loop import Drive
from orchestrator.model import Point
from orchestrator.paths import AttemptPaths, RootPaths
from orchestrator.plan import Limits
from orchestrator.planning import retry_rules
from orchestrator.search.driver import Search
from orchestrator.search.points import fixed_parameters, grid_trials, search_of
from orchestrator.search.results import TrialRow
from orchestrator.search.study import open_study
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from tests.orchestrator.driving import POOLS, Died, Fuse, Logged, Mortal
from trainer_ext.records import AttemptSpec, npz_name

__all__ = ["Died", "LiveBackend", "SearchRehearsal", "bowl", "giving", "live", "params_of", "scoring", "spec_of"]

Params = Mapping[str, Any]

STEPS = 2


def spec_of(**keys: Any) -> SweepSpec:
    """A sweep that searches x in [0, 1] for the least `m/loss`; keys of `search`, or with a prefix `sweep_` of the file."""
    own = {name.removeprefix("sweep_"): value for name, value in keys.items() if name.startswith("sweep_")}
    search = {
        "objectives": {"m/loss": "minimize"},
        "params": {"x": "interval(0, 1)"},
        "trials": 4,
        "sampler": {"name": "tpe", "n_startup_trials": 2},
    }
    search |= {name: value for name, value in keys.items() if not name.startswith("sweep_")}
    return SweepSpec.model_validate({"name": "s", "alias": {"x": "a.x"}, "search": search, **own})


def bowl(params: Params) -> dict[str, float]:
    return {"m/loss": (params["x"] - 0.3) ** 2, "m/cost": params["x"], "timing_s/step": 1.0}


def giving(function: Callable[[Params], Mapping[str, float]], otherwise: Callable[[Params], Play | None] | None = None):  # type: ignore[no-untyped-def]
    """A script of jobs that end after a second with these metrics in every step, or as `otherwise` says."""

    def on_end(request: JobRequest, started_at: float, ended_at: float) -> None:
        write_metrics(request, function, range(1, STEPS + 1))
        write_outcome(request, started_at, ended_at, exit_code=0, steps=list(range(1, STEPS + 1)))

    def script(request: JobRequest, _earlier: int) -> Play:
        play = otherwise(params_of(request)) if otherwise else None
        return play or Play(on_end=on_end)

    return script


def scoring(order: Callable[[Params], Sequence[float]], seconds: Callable[[Params], float]) -> Script:
    """A script of jobs that write these scores in every step, and take so long."""
    import numpy as np

    def script(request: JobRequest, _earlier: int) -> Play:
        def on_end(request: JobRequest, started_at: float, ended_at: float) -> None:
            values = np.asarray([order(params_of(request))], np.float32)
            folder = AttemptPaths(request.attempt_dir).influence
            folder.mkdir()
            for step in range(1, STEPS + 1):
                tokens = np.arange(values.size).reshape(values.shape)
                np.savez(folder / npz_name(step), scores=values, mask=values == values, response_ids=tokens)
            write_metrics(request, bowl, range(1, STEPS + 1))
            write_outcome(request, started_at, ended_at, exit_code=0, steps=list(range(1, STEPS + 1)))

        end = seconds(params_of(request))
        return Play(timeline=((0.0, JobState.RUNNING), (end, JobState.ENDED)), on_end=on_end)

    return script


def live(function: Callable[[Params], Mapping[str, float]], steps: int) -> Script:
    """A script for `LiveBackend`: jobs that complete a step a second, and log it then."""

    def on_end(request: JobRequest, started_at: float, ended_at: float) -> None:
        write_metrics(request, function, range(1, steps + 1))
        write_outcome(request, started_at, ended_at, exit_code=0, steps=list(range(1, steps + 1)))

    timeline = ((0.0, JobState.RUNNING), (steps + 0.5, JobState.ENDED))
    return lambda _request, _earlier: Play(timeline=timeline, on_end=on_end)


class LiveBackend(FakeBackend):
    """Jobs that run have logged a step of `bowl` for each second."""

    def poll(self, jobs: Sequence[JobRef]) -> Mapping[str, JobStatus]:
        statuses = super().poll(jobs)
        for job in self._cluster.jobs.values():
            steps = int(self._cluster.clock.now() - job.submitted_at)
            if job.state is JobState.RUNNING and steps:
                write_metrics(job.request, bowl, range(1, steps + 1))
        return statuses


def write_metrics(request: JobRequest, function: Callable[[Params], Mapping[str, float]], steps: range) -> None:
    rows = [json.dumps({"step": step, "data": dict(function(params_of(request)))}) + "\n" for step in steps]
    AttemptPaths(request.attempt_dir).metrics.write_text("".join(rows))


def params_of(request: JobRequest) -> Params:
    config = AttemptSpec.from_json(AttemptPaths(request.attempt_dir).spec.read_bytes()).config
    return dict(config["params"])


def composer(steps: int) -> Callable[[RawPoint], Point]:
    """Without Hydra: the parameters are the configuration."""

    def compose(raw: RawPoint) -> Point:
        expected = {"steps": steps, "npz": "influence/*.npz"} if raw.parameters.get("scored") else {"steps": steps}
        config = {"params": dict(raw.parameters), "job": {"command": ["{python}"], "expected": expected}}
        full = point_hash(config)
        return Point(point_id(full), raw.index, raw.name, raw.parameters, {}, raw.overrides, config, full)

    return compose


class OnlyAt:
    """Lets a fuse burn at calls of these names alone; of an empty tuple, at all."""

    def __init__(self, inner: Any, fuse: Fuse, names: tuple[str, ...]) -> None:
        self._inner, self._mortal, self._names = inner, Mortal(inner, fuse), names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mortal if not self._names or name in self._names else self._inner, name)


@dataclass
class SearchRehearsal:
    """One state folder and one fake cluster; `drive` may be called again after it died."""

    root: Path
    spec: SweepSpec = field(default_factory=spec_of)
    script: Script = field(default_factory=lambda: giving(bowl))
    clock: FakeClock = field(default_factory=FakeClock)
    gpus: int = 0
    steps: int = STEPS
    backend: Callable[[FakeCluster], FakeBackend] = FakeBackend

    def __post_init__(self) -> None:
        self.cluster = FakeCluster(self.script, self.clock, tuple(POOLS.values()))
        self.paths = RootPaths(self.root)
        self.store = Store.open(self.paths.database, self.clock)
        self.warnings: list[str] = []
        self.start()

    def start(self) -> None:
        """As `sweep SPEC` does."""
        plain, now = self.spec.model_dump(mode="json"), self.clock.now()
        self.store.put_sweep(SweepRow("s", "", "s.yaml", plain, "fake", None, "", None, {}, created_at=now), ())

    def drive(
        self, die_after: int = -1, observe: Callable[[View], None] = lambda _view: None, at: tuple[str, ...] = ()
    ) -> View:
        """Run to the end, or raise `Died` before or after one call into the store, the study or the cluster.

        Args:
            at: names of the calls that count; none: all.
        """
        fuse = Fuse(die_after)
        search, store = search_of(self.spec), OnlyAt(self.store, fuse, at)
        study = open_study(self.paths.journal("s"), "s", search, fixed_parameters(self.spec), grid_trials(self.spec))
        steering = Search(
            spec=self.spec,
            store=store,
            study=OnlyAt(study, fuse, at),
            paths=self.paths,
            clock=self.clock,
            compose=composer(self.steps),
            predict=lambda point: point,
            gpus=self.gpus,
        )
        steering.begin()
        return Drive(
            sweep="s",
            spec=self.spec,
            store=store,
            backend=OnlyAt(self.backend(self.cluster), fuse, at),
            logger=Logged(),
            clock=self.clock,
            site=Site(self.paths, "python"),
            limits=Limits(
                self.spec.budget.max_parallel,
                gpus_per_attempt=self.gpus,
                gpu_hours=self.spec.budget.gpu_hours,
                time_limit_s=self.spec.resources.time_s,
                ladder=tuple(POOLS.values()),
            ),
            rules=retry_rules(self.spec),
            pools=POOLS,
            ladder=tuple(POOLS),
            poll_s=0.25,
            warn=self.warnings.append,
            random=lambda: 0.5,
            search=steering,
        ).run(observe)

    @property
    def trials(self) -> list[TrialRow]:
        return self.store.trials("s")

    def said(self) -> list[tuple[Any, ...]]:
        """What came of every trial, without times."""
        return [(row.number, row.point, dict(row.params), row.state, row.values, row.reason) for row in self.trials]

    def journal(self) -> list[tuple[Any, ...]]:
        """The same as Optuna's journal has it."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        storage = JournalStorage(JournalFileBackend(str(self.paths.journal("s"))))
        study = optuna.load_study(study_name="s", storage=storage)
        return [(t.number, t.user_attrs.get("point"), t.params, t.state.name, t.values) for t in study.trials]
