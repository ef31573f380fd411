"""A snapshot typed after a report that was once written by hand: four points, two steps, H200.

Its tables gave step 1 alone. Made up here: everything of step 2 but rows and grad_norm (score statistics repeat step 1), and
the first point's token_scoring and update_actor.
"""

from __future__ import annotations

import pytest

from reports.snapshot import AttemptSnapshot, GitState, NpzSnapshot, PointSnapshot, SweepSnapshot

H200_BYTES = 143_771 * 1024**2
START = 1_771_754_400.0  # 2026-02-22 10:00:00 UTC


@pytest.fixture
def factor_sweep() -> SweepSnapshot:
    return SweepSnapshot(
        name="exclude-self-response",
        description="Scores without the self-response's contribution. Then sweep `factor` at 128 and 64.",
        created_at=START,
        finished_at=START + 7_500,
        state="finished",
        spec_path="sweeps/factor.yaml",
        command="python -m orchestrator sweep sweeps/factor.yaml --backend runai",
        config="influence",
        profile="h200x8",
        overrides=("influence.hessian_mode=inverse", "trainer.total_training_steps=2"),
        axes=("scope", "factor", "exclude_self_response"),
        points=(
            point("infl-excl-perprompt", "per_prompt", 512, (2.3, 0.53, 1.1, 147), 141.1, SCORES[0]),
            point("infl-excl-allsel", "all_selected", 512, (1.2, 0.29, 0.59, 146), 141.1, SCORES[1]),
            point("infl-excl-allsel-f128", "all_selected", 128, (8.5, 6.6, 1.6, 159), 156.5, SCORES[2]),
            point("infl-excl-allsel-f64", "all_selected", 64, (34.5, 31.1, 3.0, 195), 170.0, SCORES[3], exit_code=1),
        ),
        expected_steps=2,
        expected_npz=2,
        git=GitState("09115d0c3e1f6f2a", "main", False, None, "doub7e", "https://git.example/archer.git", True),
        environment={"verl": "0.9.1", "torch": "2.13.0"},
        gpu_hours=16.7,
        gpu_hours_limit=200,
    )


SCORES = (
    (0.0000042, 0.139, -96.94, 36.66),
    (-0.0000050, 0.088, -58.72, 20.27),
    (-0.0000042, 0.180, -235.38, 33.97),
    (-0.0000140, 0.207, -265.25, 119.25),
)
"""Mean, std, min, max of step 1."""


def point(
    name: str,
    scope: str,
    factor: int,
    times: tuple[float, float, float, float],
    torch_gib: float,
    scores: tuple[float, float, float, float],
    exit_code: int = 0,
) -> PointSnapshot:
    """One succeeded point. `times`: pop_rows, hessian_solve, token_scoring, update_actor of step 1 in seconds."""
    too_much = f"torch reports {torch_gib} GiB on a card of 140.4 GiB; no sampler ran beside it."
    anomalies = [("memory_metric_unreliable", too_much)]
    if exit_code:
        anomalies.append(
            ("nonzero_exit_after_completion", "Exit code 1 although both steps and both NPZ files are there.")
        )
    return PointSnapshot(
        id=name[-10:],
        name=name,
        parameters={"scope": scope, "factor": factor, "exclude_self_response": True},
        state="succeeded",
        verdict="completed",
        anomalies=tuple(anomalies),
        attempts=(
            AttemptSnapshot(1, "h200", "judged", "completed", exit_code, started_at=START, ended_at=START + 1_900),
        ),
        metrics={1: step_metrics(96, 0.054, times, torch_gib), 2: step_metrics(80, 0.066, times, torch_gib)},
        npz=(
            NpzSnapshot("influence/step_000001.npz", 1, None, 96, 6_129_414, *scores),
            NpzSnapshot("influence/step_000002.npz", 2, None, 80, 5_420_118, *scores),
        ),
        card_bytes=H200_BYTES,
        started_at=START,
        ended_at=START + 1_900,
        folder=f"{name[-10:]}/1",
    )


def step_metrics(
    rows: float, grad_norm: float, times: tuple[float, float, float, float], torch_gib: float
) -> dict[str, float]:
    pop_rows, hessian_solve, token_scoring, update_actor = times
    return {
        "influence_trace/rows_emitted": rows,
        "actor/grad_norm": grad_norm,
        "timing_s/influence_pop_rows": pop_rows,
        "timing_s/influence_hessian_solve": hessian_solve,
        "timing_s/influence_token_scoring": token_scoring,
        "timing_s/update_actor": update_actor,
        "actor/perf/max_memory_allocated_gb": torch_gib,
    }
