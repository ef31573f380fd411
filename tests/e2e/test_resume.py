"""A job that ends at any moment: the next attempt goes on from its checkpoint, to the files of an undisturbed run."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.sweeping import Product, metrics_rows, score_files, signal_wrapper, wait_for
from trainer_ext.records import AttemptSpec, Checkpoint

STEPS = 30
EVERY = 4
SWEEP = ("sweep", "sweeps/contract.yaml", "replicates.seed=[0]", "synthetic.step_seconds=0.05")
LONG = (*SWEEP, f"trainer.total_training_steps={STEPS}")


def attempts(product: Product) -> dict[int, list[Path]]:
    """Attempt folders in their order, by the point's factor."""
    found: dict[int, list[Path]] = {}
    for folder in product.attempt_folders("contract"):
        spec = AttemptSpec.from_json((folder / "attempt.json").read_text())
        found.setdefault(spec.config["influence"]["projection_dim_factor"], []).append(folder)
    return found


def far_enough(product: Product, factor: int, steps: int) -> bool:
    (folder, *_) = attempts(product).get(factor, [product.root])
    return (folder / "metrics.jsonl").exists() and len(metrics_rows(folder)) >= steps


@pytest.mark.slow
def test_a_killed_job_and_a_warned_one_continue_to_the_files_of_undisturbed_ones(
    product: Product, tmp_path: Path
) -> None:
    process = product.start(*LONG, f"trainer.save_freq={EVERY}")
    for factor, number in ((128, signal.SIGKILL), (64, signal.SIGUSR2)):  # a node that dies, a scheduler's warning
        wait_for(lambda factor=factor: far_enough(product, factor, 2 * EVERY + 1), 60)  # type: ignore[misc]
        signal_wrapper(attempts(product)[factor][0], number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    quiet = Product(tmp_path / "quiet")
    code, output = quiet.run(*LONG)
    assert code == 0, output

    killed, warned = attempts(product)[128], attempts(product)[64]
    points = product.json("status")["points"]
    assert [[attempt["verdict"] for attempt in point["attempts"]] for point in points] == [
        ["node_failure", "completed"],
        ["preempted", "completed"],
    ]
    for factor, (first, second) in ((128, killed), (64, warned)):
        (undisturbed,) = attempts(quiet)[factor]
        assert len(score_files(undisturbed)) == STEPS
        assert score_files(second) == score_files(undisturbed)
        assert metrics_rows(second) == metrics_rows(undisturbed)
        resumed_after = Checkpoint.from_json((second / "checkpoint.json").read_text()).resumed_after
        done = len(score_files(first))
        if factor == 64:
            assert resumed_after == done, "a warned job saves before it ends, and loses no step"
        else:
            assert resumed_after % EVERY == 0
            assert 2 * EVERY <= resumed_after <= done <= resumed_after + EVERY
    assert json.loads((warned[0] / "outcome.json").read_text())["exit_code"] == 0
