"""The smoke sweep through Slurm: real verl, from the sweep file to the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.sweeping import Product, check_a_trained_step
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
    check_a_trained_step(product, "smoke", point["name"])
