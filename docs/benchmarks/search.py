"""What a search costs beside its jobs: `python docs/benchmarks/search.py [TRIALS] [CONFIG]`.

Jobs end the moment they start and leave a metric that is a known function of their parameters (the fake backend), so that
everything that takes time is ours: asking, composing, the store's and the journal's commits, the attempt's folder, collecting,
judging, telling. Prints milliseconds a trial, by hundred trials, as wall and as CPU time, with and without MLflow.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from orchestrator.backends.base import JobRequest, JobState
from orchestrator.backends.fake import FakeBackend, FakeCluster, Play, always
from orchestrator.backends.fake_files import write_outcome
from orchestrator.clock import SystemClock
from orchestrator.launch import Site
from orchestrator.ledger import AttemptRow, PointRow, SweepRow, View
from orchestrator.loop import Drive, PointLogger
from orchestrator.paths import AttemptPaths, RootPaths
from orchestrator.plan import Limits
from orchestrator.planning import retry_rules
from orchestrator.recording import Recorder, sweep_record
from orchestrator.search.opening import open_search
from orchestrator.search.results import best
from orchestrator.sinks.mlflow import open_mlflow
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from trainer_ext.records import AttemptSpec

FACTOR = "influence.projection_dim_factor"


class Nowhere:
    """No sink."""

    def log(self, point: PointRow, history: Sequence[AttemptRow]) -> None:
        """Nothing."""


def at_once(request: JobRequest, started_at: float, ended_at: float) -> None:
    paths = AttemptPaths(request.attempt_dir)
    factor = AttemptSpec.from_json(paths.spec.read_bytes()).config["influence"]["projection_dim_factor"]
    paths.metrics.write_text(json.dumps({"step": 1, "data": {"m/loss": (factor - 100) ** 2}}) + "\n")
    write_outcome(request, started_at, ended_at, exit_code=0, steps=[1])


def spec_of(trials: int, config: str) -> SweepSpec:
    return SweepSpec.model_validate(
        {
            "name": "benchmark",
            "config": config,
            "profile": "smoke" if config == "influence" else None,
            "backend": "fake",
            "overrides": ["trainer.total_training_steps=1", "job.expected.npz=null"],
            "alias": {"factor": FACTOR, "seed": "influence.seed"},
            "search": {
                "objectives": {"m/loss": "minimize"},
                "params": {"factor": "int(1, 100000, log)", "seed": "int(0, 100000)"},
                "trials": trials,
            },
        }
    )


def measure(root: Path, spec: SweepSpec, *, with_mlflow: bool) -> None:
    clock, paths = SystemClock(), RootPaths(root)
    store = Store.open(paths.database, clock)
    plain = spec.model_dump(mode="json")
    row = SweepRow(spec.name, "", "", plain, "fake", None, "", None, {}, created_at=clock.now())
    store.put_sweep(row, ())
    logger: PointLogger = Nowhere()
    if with_mlflow:
        sink = open_mlflow(paths, {})
        sink.write_sweep(sweep_record(row, ()))
        logger = Recorder(sink, store, paths)
    timeline = ((0.0, JobState.RUNNING), (0.0, JobState.ENDED))
    marks = [(0, time.perf_counter(), time.process_time())]

    def observe(view: View) -> None:
        done = sum(point.state.is_terminal for point in view.points)
        if done >= marks[-1][0] + 100:
            marks.append((done, time.perf_counter(), time.process_time()))

    with open_search(spec, store, paths, clock, lambda point: point, 0) as search:
        drive = Drive(
            sweep=spec.name,
            spec=spec,
            store=store,
            backend=FakeBackend(FakeCluster(always(Play(timeline=timeline, on_end=at_once)), clock)),
            logger=logger,
            clock=clock,
            site=Site(paths, "python"),
            limits=Limits(1),
            rules=retry_rules(spec),
            pools={},
            ladder=(),
            poll_s=0.0,
            warn=print,
            search=search,
        )
        drive.run(observe)
    print("with MLflow" if with_mlflow else "without a sink")
    for (before, wall, cpu), (after, wall_then, cpu_then) in pairwise(marks):
        trials = after - before
        each = [1000 * (wall_then - wall) / trials, 1000 * (cpu_then - cpu) / trials]
        print(f"  trials {before + 1} to {after}: {each[0]:.1f} ms wall, {each[1]:.1f} ms CPU a trial")
    found = best(store.trials(spec.name), ("minimize",))
    print(f"  best: {found.params if found else None}")


def main(words: Sequence[str]) -> None:
    spec = spec_of(int(words[0]) if words else 200, words[1] if len(words) > 1 else "synthetic")
    for with_mlflow in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), spec, with_mlflow=with_mlflow)


if __name__ == "__main__":
    main(sys.argv[1:])
