from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest

from reports.snapshot import AttemptSnapshot, Expected, NpzSnapshot, PointSnapshot, PredictionSnapshot, SweepSnapshot

GIB = 1024**3
BINS = ((-251.0, -158.0, 2), (-1.0, -0.1, 400), (-0.1, 0.1, 10_000), (0.1, 1.0, 350), (25.1, 39.8, 1))


@pytest.fixture
def rich_sweep(factor_sweep: SweepSnapshot) -> SweepSnapshot:
    """The factor sweep with all that a plot could show: bins, phases, predictions, and both kinds of memory."""
    return dataclasses.replace(factor_sweep, points=tuple(map(_rich, factor_sweep.points)))


def _rich(point: PointSnapshot) -> PointSnapshot:
    return dataclasses.replace(
        point,
        npz=tuple(dataclasses.replace(file, histogram=BINS) for file in point.npz),
        gpu_peak_bytes=118 * GIB,
        host_peak_bytes=436 * GIB,
        host_limit_bytes=900 * GIB,
        predicted=PredictionSnapshot(
            Expected(110 * GIB, 90 * GIB, 130 * GIB), Expected(400 * GIB, 300 * GIB, 600 * GIB), None
        ),
        metrics={step: {**values, **_passes(step)} for step, values in point.metrics.items()},
    )


def _passes(step: int) -> dict[str, float]:
    return {
        "timing_s/gen": 40.0 + step,
        "timing_s/influence_forward_1": 9.0,
        "timing_s/influence_logprob_backward": 30.0,
        "timing_s/influence_forward_2": 9.0,
        "timing_s/influence_loss_backward": 29.0,
        "timing_s/influence_grad_staging": 0.1,
        "timing_s/step": 260.0,
    }


@pytest.fixture
def sweep_of() -> Callable[[int, int], SweepSnapshot]:
    """So many points, each with so many steps."""

    def made(number: int, steps: int = 2) -> SweepSnapshot:
        rng = random.Random(number)
        points = tuple(
            PointSnapshot(
                f"p{place:03}",
                f"job-{place:03}",
                {"factor": 2 ** (place % 5 + 3), "lr": place // 5},
                state="succeeded",
                attempts=(AttemptSnapshot(1, "h100"),),
                metrics={
                    step: {
                        "timing_s/step": 100 + 50 * rng.random(),
                        "timing_s/update_actor": 50 + rng.random(),
                        "timing_s/influence_pop_rows": 5 + place % 5 + rng.random(),
                        "timing_s/influence_hessian_solve": 1 + place % 5,
                        "actor/grad_norm": rng.random(),
                        "critic/rewards/mean": step / 10 + rng.random(),
                    }
                    for step in range(1, steps + 1)
                },
                npz=(NpzSnapshot("influence/step_000001.npz", 1, None, 16, 10_753, 0.0, 0.1 + place / 100, -9.0, 8.0),),
                gpu_peak_bytes=int((40 + rng.random()) * GIB),
                card_bytes=81_559 * 1024**2,
            )
            for place in range(number)
        )
        return SweepSnapshot(name="many", points=points, axes=("factor", "lr"))

    return made
