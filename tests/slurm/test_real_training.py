"""The smoke sweep through Slurm: real verl, from the sweep file to the report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.e2e.sweeping import Product, completions
from tests.slurm.cluster import Cluster

SWEEP = (
    *("sweep", "sweeps/smoke.yaml", "trainer.total_training_steps=1", "parameters.scope=[per_prompt]"),
    *("resources.host_memory=14GiB", "resources.gpus=8", "--backend", "slurm"),  # Slurm names the cards to the job
)


@pytest.mark.verl
def test_the_smoke_sweep_trains_on_the_cluster_and_reports_real_scores(cluster: Cluster, shared_folder: Path) -> None:
    product = Product(shared_folder / "smoke", cluster.environ)
    code, output = product.run(*SWEEP, timeout=500)
    assert code == 0, output[-3000:]
    (point,) = product.json("status", "smoke")["points"]
    assert [(attempt["pool"], attempt["verdict"]) for attempt in point["attempts"]] == [("h100", "completed")]
    assert set(completions(product, "smoke").values()) == {1}
    assert point["name"] in product.report("smoke")
    (folder,) = product.attempt_folders("smoke")
    (row,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert row["data"]["influence_trace/rows_emitted"] > 0
    assert math.isfinite(row["data"]["actor/grad_norm"])
    (collected,) = product.collect(folder)
    assert [file["nan_in_valid"] for file in collected["npz"]] == [0]
