"""Every way in which a job can end by itself or by others, through the command line."""

from __future__ import annotations

from pathlib import Path

import mlflow

from tests.runai.plane import ControlPlane
from tests.runai.scenarios import Played, Stage
from tests.runai.server import Server

SUSPENDED, DELETED = 11, 12
"""Seeds of points whose workloads others touch."""
SWEEP = {
    "name": "ends",
    "overrides": ["synthetic.fail_on_pools=[h100]"],
    "include": [
        {"case": 1, "fail": "none"},
        {"case": 2, "fail": "exit_nonzero_after"},
        {"case": 3, "fail": "python_error"},
        {"case": 4, "fail": "cuda_oom"},
        {"case": SUSPENDED, "fail": "none", "step_seconds": 30},
        {"case": DELETED, "fail": "none", "step_seconds": 30},
    ],
    "alias": {"case": "synthetic.seed", "fail": "synthetic.fail", "step_seconds": "synthetic.step_seconds"},
    "job_name": "case-{case}",
}


def others_interfere(stage: Stage) -> None:
    plane = stage.server.plane
    deeds = {SUSPENDED: plane.suspend, DELETED: plane.delete}
    for seed, deed in deeds.items():
        stage.wait_for(lambda seed=seed: stage.begun(seed), f"case {seed} runs")
        with plane.lock:
            deed(stage.begun(seed)[0])


def test_jobs_come_out_as_they_ended_whatever_run_ai_calls_it(tmp_path: Path) -> None:
    with Server(ControlPlane(tmp_path / "containers")) as server:
        played = Stage(server, tmp_path, SWEEP).play(others_interfere)
        assert played.left_over() == []
    assert server.api.dishonest == []
    assert played.states() == {
        "case-1": "succeeded",
        "case-2": "succeeded",
        "case-3": "failed",
        "case-4": "succeeded",
        "case-11": "cancelled",
        "case-12": "cancelled",
    }, played.output
    assert played.exit_code == 1
    assert played.tried("case-1") == [("h100", "completed")]
    assert played.tried("case-2") == [("h100", "completed")]
    assert "nonzero_exit_after_completion" in played.point("case-2")["anomalies"]
    assert played.tried("case-3") == [("h100", "code_error")], "an error of the code is not tried again"
    assert played.tried("case-4") == [("h100", "gpu_oom"), ("h200", "completed")]
    assert played.tried("case-11") == played.tried("case-12") == [("h100", "cancelled")]
    assert played.complete_runs() == {name: int(state == "succeeded") for name, state in played.states().items()}
    check_lineage(played)
    check_secrets(played)


def check_lineage(played: Played) -> None:
    """The control plane, MLflow and the report all have both tries of the point that needed the larger card."""
    point = played.point("case-4")
    first, second = played.stage.server.plane.named(f"ends-{point['id']}-")
    assert [one.spec["nodePools"] for one in (first, second)] == [["h100"], ["h200"]]
    assert [pod.pool for one in (first, second) for pod in one.pods] == ["h100", "h200"]
    client = mlflow.MlflowClient(f"sqlite:///{played.stage.product.root / 'mlflow.db'}")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    tries = {
        (run.data.tags.get("pool"), run.data.tags.get("verdict"))
        for run in runs
        if "case-4" in (run.info.run_name or "")
    }
    assert tries == {("h100", "gpu_oom"), ("h200", "completed")}
    rows = [line for line in played.stage.product.report("ends").splitlines() if "case-4" in line]
    assert any("h100" in row and "h200" in row for row in rows), rows


def check_secrets(played: Played) -> None:
    """Nothing that the sweep leaves or says has the secret."""
    secret = played.stage.server.environ["RUNAI_CLIENT_SECRET"].encode()
    files = [path for path in played.stage.product.root.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if secret in path.read_bytes()] == []
    assert secret.decode() not in played.output
