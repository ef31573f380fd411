"""Real verl, trained for real on this CPU, from the sweep file to the report; once the orchestrator is killed, and once a job.

One sweep serves two tests: it is what the job that is killed and resumed has to equal.
"""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import pytest

from tests.e2e.sweeping import Product, completions, metrics_rows, score_files, signal_wrapper, wait_for
from trainer_ext.records import AttemptSpec, Checkpoint

STEPS = 4
SOLVER = "influence.solver=direct"  # auto goes by measured rates, and may solve otherwise the next time
SWEEP = ("sweep", "sweeps/smoke.yaml", f"trainer.total_training_steps={STEPS}", SOLVER)
KILLED = (*SWEEP, "name=killed", "parameters.scope=[per_prompt]", "trainer.save_freq=1")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Product:
    product = Product(tmp_path_factory.mktemp("smoke") / "runs")
    assert product.start_and_kill(*SWEEP, after=25), "the sweep was done before it could be killed"
    code, output = product.run(*SWEEP, timeout=600)
    assert code == 0, output
    return product


@pytest.mark.verl
def test_the_smoke_sweep_survives_a_kill_and_reports_real_scores(swept: Product) -> None:
    status = swept.json("status", "smoke")
    assert status["state"] == "succeeded"
    assert {point["verdict"] for point in status["points"]} == {"completed"}
    assert set(completions(swept, "smoke").values()) == {1}
    report = swept.report("smoke")
    for point in status["points"]:
        assert point["name"] in report
    for folder in swept.attempt_folders("smoke"):
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        for row in rows:
            assert row["data"]["influence_trace/rows_emitted"] > 0
            assert math.isfinite(row["data"]["actor/grad_norm"])
            assert row["data"]["timing_s/influence_hessian_solve"] > 0
    (collected,) = swept.collect(folder)
    assert collected["verdict"] == "completed"
    assert [file["nan_in_valid"] for file in collected["npz"]] == [0] * STEPS
    assert all(file["std"] > 0 for file in collected["npz"])


@pytest.mark.verl
def test_a_job_whose_node_dies_goes_on_from_its_checkpoint_to_the_same_bytes(swept: Product) -> None:
    process = swept.start(*KILLED)

    def saved() -> int:
        notes = [folder / "checkpoint.json" for folder in swept.attempt_folders("killed")[:1]]
        return max(
            (Checkpoint.from_json(note.read_text()).saved_after or 0 for note in notes if note.exists()), default=0
        )

    wait_for(lambda: saved() >= 2, 300)
    signal_wrapper(swept.attempt_folders("killed")[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    first, second = swept.attempt_folders("killed")
    undisturbed = of_scope(swept.attempt_folders("smoke"), "per_prompt")
    assert 2 <= Checkpoint.from_json((second / "checkpoint.json").read_text()).resumed_after < STEPS
    assert len(score_files(undisturbed)) == STEPS
    assert score_files(second) == score_files(undisturbed)
    assert metrics_rows(second) == metrics_rows(undisturbed)
    assert [path.name for path in (first.parent / "checkpoints").glob("global_step_*")] == [f"global_step_{STEPS}"]


def of_scope(folders: list[Path], scope: str) -> Path:
    specs = {folder: AttemptSpec.from_json((folder / "attempt.json").read_text()) for folder in folders}
    return next(folder for folder, spec in specs.items() if spec.config["influence"]["scope"] == scope)
