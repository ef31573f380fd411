"""Every way in which a job can end by itself or by others, through the command line: one sweep for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import mlflow
import pytest

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


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("ends")
    with Server(ControlPlane(folder / "containers")) as server:
        yield Stage(server, folder, SWEEP).play(others_interfere)
    assert server.api.dishonest == []


def test_every_point_ends_as_its_job_did(played: Played) -> None:
    assert played.states() == {
        "case-1": "succeeded",
        "case-2": "succeeded",
        "case-3": "failed",
        "case-4": "succeeded",
        "case-11": "cancelled",
        "case-12": "cancelled",
    }, played.output
    assert played.exit_code == 1


def test_a_non_zero_exit_after_completion_is_an_anomaly_and_no_failure(played: Played) -> None:
    assert played.tried("case-2") == [("h100", "completed")]
    assert "nonzero_exit_after_completion" in played.point("case-2")["anomalies"]


def test_an_error_of_the_code_is_not_tried_again(played: Played) -> None:
    assert played.tried("case-3") == [("h100", "code_error")]


def test_a_card_that_is_too_small_sends_the_point_to_the_larger_pool(played: Played) -> None:
    assert played.tried("case-4") == [("h100", "gpu_oom"), ("h200", "completed")]
    first, second = [
        one for one in played.stage.server.plane.named("ends-") if one.name.startswith(prefix_of(played, "case-4"))
    ]
    assert [one.spec["nodePools"] for one in (first, second)] == [["h100"], ["h200"]]
    assert second.pods[0].node.startswith("h200-")


def prefix_of(played: Played, point: str) -> str:
    return f"ends-{played.point(point)['id']}-"


def test_store_mlflow_and_report_show_where_the_point_came_from(played: Played) -> None:
    report = played.stage.product.report("ends")
    row = next(line for line in report.splitlines() if "case-4" in line and "h200" in line)
    assert row
    client = mlflow.MlflowClient(f"sqlite:///{played.stage.product.root / 'mlflow.db'}")
    experiments = [one.experiment_id for one in client.search_experiments()]
    runs = client.search_runs(experiments)
    pools = {
        (run.data.tags.get("pool"), run.data.tags.get("verdict"))
        for run in runs
        if run.info.run_name and "case-4" in run.info.run_name
    }
    assert pools == {("h100", "gpu_oom"), ("h200", "completed")}, [run.data.tags for run in runs]


def test_what_others_stop_or_delete_is_cancelled(played: Played) -> None:
    assert played.tried("case-11") == [("h100", "cancelled")]
    assert played.tried("case-12") == [("h100", "cancelled")]


def test_no_point_runs_twice_to_its_end_and_no_workload_is_left(played: Played) -> None:
    runs = played.complete_runs()
    assert runs == {name: int(state == "succeeded") for name, state in played.states().items()}
    assert played.left_over() == []


def test_secrets_are_nowhere_in_what_a_sweep_leaves(played: Played) -> None:
    secret = played.stage.server.environ["RUNAI_CLIENT_SECRET"].encode()
    files = [path for path in played.stage.product.root.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if secret in path.read_bytes()] == []
    assert secret.decode() not in played.output
