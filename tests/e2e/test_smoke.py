"""Real verl, trained for real on this CPU, from the sweep file to the report; killed once on the way."""

from __future__ import annotations

import json
import math

import pytest

from tests.e2e.sweeping import Product, completions

SWEEP = ("sweep", "sweeps/smoke.yaml")


@pytest.mark.verl
def test_the_smoke_sweep_survives_a_kill_and_reports_real_scores(product: Product) -> None:
    assert product.start_and_kill(*SWEEP, after=25), "the sweep was done before it could be killed"
    code, output = product.run(*SWEEP, timeout=600)
    assert code == 0, output
    status = product.json("status")
    assert status["state"] == "succeeded"
    assert {point["verdict"] for point in status["points"]} == {"completed"}
    assert set(completions(product, "smoke").values()) == {1}
    report = product.report("smoke")
    for point in status["points"]:
        assert point["name"] in report
    for folder in product.attempt_folders("smoke"):
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [1, 2]
        for row in rows:
            assert row["data"]["influence_trace/rows_emitted"] > 0
            assert math.isfinite(row["data"]["actor/grad_norm"])
            assert row["data"]["timing_s/influence_hessian_solve"] > 0
    (collected,) = product.collect(folder)
    assert collected["verdict"] == "completed"
    assert [file["nan_in_valid"] for file in collected["npz"]] == [0, 0]
    assert all(file["std"] > 0 for file in collected["npz"])
