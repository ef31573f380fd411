"""A sweep of hundreds of points, made up: three axes and two replicates, some points failed and some flagged."""

from __future__ import annotations

import itertools
import random

from reports.snapshot import AttemptSnapshot, NpzSnapshot, PointSnapshot, SweepSnapshot

GIB = 1024**3


def large_sweep(points: int = 500) -> SweepSnapshot:
    """The first so many of 512."""
    axes = itertools.product(("per_prompt", "all_selected"), range(64), (0.1, 0.2), (0, 1))
    made = tuple(_point(*levels) for levels in itertools.islice(axes, points))
    return SweepSnapshot(
        "large",
        axes=("scope", "width", "lr", "seed"),
        points=made,
        expected_steps=2,
        expected_npz=1,
        gpus=8,
    )


def _point(scope: str, width: int, lr: float, seed: int) -> PointSnapshot:
    name = f"{scope}-w{width}-lr{lr}-s{seed}"
    draw = random.Random(name)
    failed = draw.random() < 0.04
    attempt = AttemptSnapshot(
        1,
        "h100",
        "judged",
        "gpu_oom" if failed else "completed",
        1 if failed else 0,
        reason="out of GPU memory" if failed else None,
        started_at=0.0,
        ended_at=1_000 * draw.random() + 500,
        gpu_hours=2.0,
        folder=f"{name}/1",
    )
    metrics = {
        "timing_s/step": 100 * draw.random(),
        "actor/grad_norm": draw.random(),
        "timing_s/influence_pop_rows": 2.0,
    }
    return PointSnapshot(
        id=name,
        name=name,
        parameters={"scope": scope, "width": width, "lr": lr, "seed": seed},
        replicate={"seed": seed},
        state="failed" if failed else "succeeded",
        verdict=attempt.verdict,
        reason=attempt.reason,
        anomalies=(("throughput_outlier", f"{draw.random():.3f} s a step"),) if draw.random() < 0.1 else (),
        attempts=(attempt,),
        metrics={} if failed else {1: metrics, 2: metrics},
        npz=() if failed else (NpzSnapshot("influence/step_000001.npz", 1, None, 2, 9, 0.0, draw.random(), -1.0, 1.0),),
        gpu_peak_bytes=int(70 * draw.random() * GIB),
        card_bytes=80 * GIB,
        folder=f"{name}/1",
    )
