"""A sweep whose every figure is another number: jobs on the fake cluster, their files collected, judged and stored as always.

No two metrics of any job are equal, so a report that takes a figure from the wrong step, job or metric is found out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from orchestrator.backends.base import JobRequest, JobState
from orchestrator.backends.fake import Play
from orchestrator.backends.fake_files import fail, write_outcome
from orchestrator.identity import point_hash, point_id
from orchestrator.model import Estimate, Forecast, Point, Prediction
from orchestrator.paths import AttemptPaths
from orchestrator.spec_model import SweepSpec
from reports.metrics import PHASES
from tests.orchestrator.driving import Rehearsal
from trainer_ext.records import AttemptSpec, MemorySample, Node
from trainer_ext.writer import ScoredResponse, write_step

GIB = 1024**3
OOM = "starting\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.35 GiB.\n"
RANGES = {
    "influence_trace/rows_emitted": (60, 2_000),
    "influence_trace/debug_capture_selected_tokens": (10_000, 900_000),
    "actor/grad_norm": (0.02, 0.9),
    "perf/max_memory_allocated_gb": (60.0, 79.0),
    "perf/physical_memory_peak_gb": (50.0, 70.0),
    "perf/host_memory_peak_gb": (200.0, 300.0),
    "perf/cpu_memory_used_gb": (400.0, 700.0),
    **{name: (0.01, 400.0) for _, names in PHASES for name in names[:1]},
}
"""Metric -> what it lies between."""


@dataclass(frozen=True)
class Axes:
    scope: str
    factor: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.scope}-f{self.factor}-s{self.seed}"

    def random(self, what: str) -> random.Random:
        return random.Random(f"{self.name} {what}")


def drive(root: Path, jobs: Sequence[Axes]) -> Rehearsal:
    """Run these to their end; jobs of factor 32 run out of memory on the first pool."""
    by_name = {job.name: job for job in jobs}

    def script(request: JobRequest, _earlier: int) -> Play:
        spec = AttemptSpec.from_json(AttemptPaths(request.attempt_dir).spec.read_bytes())
        job = by_name[str(spec.config["name"])]
        assert request.pool is not None
        seconds = job.random(f"seconds {spec.attempt}").uniform(700, 2_000)
        timeline = ((0.0, JobState.QUEUED), (0.5, JobState.RUNNING), (seconds, JobState.ENDED))
        dies = request.pool.name == "h100" and job.factor == 32
        return Play(timeline=timeline, on_end=fail(1, log=OOM) if dies else lambda *times: _leave(job, *times))

    spec = SweepSpec.model_validate(
        {
            "name": "s",
            "description": "Traced.",
            "resources": {"gpus": 8},
            "budget": {"max_parallel": 40, "gpu_hours": 900},
        }
    )
    rehearsal = Rehearsal(root / "runs", script, points=0, spec=spec, poll_s=60.0)
    rehearsal.put([_point(index, job) for index, job in enumerate(jobs)])
    git = {
        "commit": "0123456789abcdef",
        "branch": "main",
        "dirty": True,
        "diff_sha256": "feedface" * 8,
        "pushed": False,
    }
    file = {"path": "solve.py", "change": "modified", "added": 1_234, "removed": 56, "subjects": ["Solve faster"]}
    changes = {"base": "a" * 40, "head": "0123456789abcdef", "base_sweep": "before", "files": [file]}
    changes["commits"] = [{"hash": "b" * 40, "subject": "Solve faster"}]
    row = replace(rehearsal.store.sweep("s"), git={**git, "changes": changes}, environment={"torch": "2.13.0"})
    rehearsal.store.put_sweep(row, [_point(index, job) for index, job in enumerate(jobs)])
    rehearsal.drive()
    return rehearsal


def _point(index: int, job: Axes) -> Point:
    config = {
        "name": job.name,
        "job": {"command": ["{python}", "job.py"], "expected": {"steps": 2, "npz": "influence/step_*.npz"}},
    }
    full = point_hash(config)
    parameters = {"scope": job.scope, "factor": job.factor, "seed": job.seed}
    forecast = Forecast(
        gpu_bytes=_guess(job, "gpu", GIB * 60),
        host_bytes=_guess(job, "host", GIB * 250),
        seconds=_guess(job, "s", 1_300),
    )
    predicted = Prediction("influence", on={"h100": forecast, "h200": forecast})
    return Point(point_id(full), index, job.name, parameters, {"seed": job.seed}, (), config, full, predicted=predicted)


def _guess(job: Axes, what: str, about: float) -> Estimate:
    value = about * job.random(f"guess {what}").uniform(0.8, 1.2)
    return Estimate(value, value * 0.93, value * 1.11)


def metrics_of(job: Axes, step: int) -> dict[str, float]:
    figures = {name: job.random(f"{name} {step}").uniform(*between) for name, between in RANGES.items()}
    figures["timing_s/step"] = figures["timing_s/step"] / 10 + 50 * 128 / job.factor  # a course that the findings tell
    whole = {name: float(round(figures[name])) for name in RANGES if name.startswith("influence_trace/")}
    parts = ("grad_staging", "hessian_solve", "token_scoring", "score_aggregation")
    inside = sum(figures[f"timing_s/influence_{part}"] for part in parts)
    return {**figures, **whole, "timing_s/influence_pop_rows": inside * job.random(f"pop {step}").uniform(1.1, 1.3)}


def _leave(job: Axes, request: JobRequest, started_at: float, ended_at: float) -> None:
    paths = AttemptPaths(request.attempt_dir)
    spec = AttemptSpec.from_json(paths.spec.read_bytes())
    lines = [json.dumps({"step": step, "data": metrics_of(job, step)}) for step in (1, 2)]
    paths.metrics.write_text("".join(line + "\n" for line in lines))
    paths.console.write_text("".join(f"line {number}\n" for number in range(job.random("log").randint(20, 90))))
    draw = job.random("memory")
    sample = MemorySample(
        time=ended_at,
        gpu_used=[int(draw.uniform(55, 76) * GIB) for _ in range(8)],
        gpu_total=[int(141 * GIB)] * 8,
        process_pss=int(draw.uniform(250, 330) * GIB),
        cgroup_limit=900 * GIB,
    )
    paths.memory.write_text(sample.to_json() + "\n")
    node = Node(
        host="node-7", gpus=["NVIDIA H100"] * 8, driver="570.86", image="verl@sha256:ab", packages_sha256="c" * 64
    )
    paths.node.write_text(node.to_json())
    for step in (1, 2):
        write_step(paths.influence, step, _responses(job, step), _meta(job, step))
    write_outcome(request, started_at, ended_at, exit_code=0, steps=[1, 2])
    assert spec.token == request.token


def _responses(job: Axes, step: int) -> list[ScoredResponse]:
    generator = np.random.default_rng(job.factor * 100 + job.seed * 10 + step + len(job.scope))
    tokens = [int(generator.integers(900, 1_500)) for _ in range(2)]
    spread = float(generator.uniform(0.05, 0.4)) * (10 if job.scope == "per_prompt" else 1)  # in every pair the wider
    return [
        ScoredResponse(
            np.zeros(n, np.int32), generator.normal(0.01, spread, n), np.ones(n, np.bool_), not row, 1.0, "prompt"
        )
        for row, n in enumerate(tokens)
    ]


def _meta(job: Axes, step: int) -> dict[str, object]:
    k_in, k_out = 1_536 // job.factor, 8_960 // job.factor
    modules = {
        f"layers.{layer}.{kind}": {"k_in": k_in, "k_out": side, "route": "dense", "residual": draw.uniform(1e-7, 1e-4)}
        for layer in range(3)
        for kind, side in (("q_proj", k_in), ("up_proj", k_out))
        if (draw := job.random(f"residual {layer} {kind} {step}"))
    }
    if job.seed or job.factor != 64 or job.scope != "per_prompt":
        return {"modules": modules}
    draw = job.random(f"dots {step}")
    rows = [
        {
            "matrix": matrix,
            "scope": scope,
            "pair": pair,
            "mean": draw.uniform(-200, 200),
            "cosine": draw.uniform(-1, 1),
            "self_dot": None if pair == "acc-rej" else draw.uniform(1, 300),
            "pairs": draw.randint(2, 3_000),
        }
        for matrix in ("RAW_DOT", "HINV_DOT")
        for scope in ("PER_PROMPT", "ALL_PROMPT")
        for pair in ("acc-acc", "rej-rej", "acc-rej")
    ]
    return {"modules": modules, "similarity": {"rows": rows, "residual": 3.217e-5}}
