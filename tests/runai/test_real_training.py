"""The smoke sweep through the double of Run:ai: real verl, from the sweep file to the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.sweeping import Product, check_a_trained_step
from tests.runai.plane import ControlPlane
from tests.runai.scenarios import environ
from tests.runai.server import Server

SWEEP = (
    *("sweep", "sweeps/smoke.yaml", "trainer.total_training_steps=1", "parameters.scope=[per_prompt]"),
    *("resources.host_memory=14GiB", "--backend", "runai"),
)


@pytest.mark.verl
def test_the_smoke_sweep_trains_in_a_workload_and_reports_real_scores(tmp_path: Path) -> None:
    with Server(ControlPlane(tmp_path / "containers")) as server:
        product = Product(tmp_path / "runs", environ(server))
        code, output = product.run(*SWEEP, timeout=500)
        (workload,) = server.plane.workloads.values()
    assert code == 0, output[-3000:]
    assert (workload.phase, [pod.pool for pod in workload.pods]) == ("Completed", ["h100"])
    assert server.api.dishonest == []
    (point,) = product.json("status", "smoke")["points"]
    assert [attempt["verdict"] for attempt in point["attempts"]] == ["completed"]
    check_a_trained_step(product, "smoke", point["name"])
