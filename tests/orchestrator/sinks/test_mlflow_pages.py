"""A real server on what the sink wrote: the printed link, searches, and previews of the report."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from orchestrator.cli.ui import link
from orchestrator.model import Anomaly, AttemptState, PointState, Verdict
from orchestrator.paths import RootPaths
from orchestrator.sinks.base import Artifact, AttemptRecord, PointRecord, SweepEnd, SweepRecord
from orchestrator.sinks.mlflow import SweepRuns, open_mlflow
from orchestrator.sinks.mlflow_server import base_url, compare_url, server_command
from orchestrator.sinks.mlflow_view import points_filter

START = 1_771_754_400_000
PNG = bytes.fromhex("89504e470d0a1a0a")


def attempt(n: int, verdict: Verdict, pool: str = "h100") -> AttemptRecord:
    return AttemptRecord(
        n, AttemptState.JUDGED, pool, verdict=verdict, started_at_ms=START + n, ended_at_ms=START + n + 9
    )


def point(sweep: str, factor: int, *attempts: AttemptRecord, anomalies: tuple[Anomaly, ...] = ()) -> PointRecord:
    done = attempts[-1].verdict is Verdict.COMPLETED
    return PointRecord(
        sweep=sweep,
        id=f"point-{factor}",
        name=f"infl-f{factor}",
        state=PointState.SUCCEEDED if done else PointState.FAILED,
        parameters={"factor": factor, "seed": 0},
        replicate=frozenset({"seed"}),
        verdict=attempts[-1].verdict,
        anomalies=anomalies,
        attempts=attempts,
        summary={"summary/score_std": 10 / factor, "summary/step_s": float(factor)} if done else {"summary/steps": 0.0},
    )


def fill(paths: RootPaths, folder: Path) -> SweepRuns:
    """Two runs of a sweep of one name; the second has three points, of which one moved to a larger pool and one failed."""
    sink = open_mlflow(paths, {})
    (folder / "report.md").write_text("# Report\n\n| a |\n| --- |\n")
    (folder / "report.html").write_text("<h1>Report</h1>")
    (folder / "scores.png").write_bytes(PNG)
    sink.write_sweep(SweepRecord("factor", START - 9, axes=("factor", "seed")))
    sink.write_point(point("factor", 1, attempt(1, Verdict.COMPLETED)))
    sink.write_sweep(SweepRecord("factor", START, "Which factor?", ("factor", "seed")))
    small, large = attempt(1, Verdict.GPU_OOM), attempt(2, Verdict.COMPLETED, "h200")
    sink.write_point(point("factor", 64, small))
    sink.write_point(point("factor", 64, small, large, anomalies=(Anomaly("oom_recovered", "h100 was too small"),)))
    sink.write_point(point("factor", 128, attempt(1, Verdict.COMPLETED)))
    sink.write_point(point("factor", 512, attempt(1, Verdict.CODE_ERROR)))
    files = [Artifact(folder / "report.md"), Artifact(folder / "report.html"), Artifact(folder / "scores.png", "plots")]
    sink.finish_sweep(SweepEnd("factor", PointState.FAILED, START + 99, "# It went", artifacts=tuple(files)))
    found = sink.locate("factor")
    assert found is not None
    return found


@dataclass(frozen=True)
class Served:
    base: str
    runs: SweepRuns

    def post(self, call: str, **body: Any) -> Any:
        return httpx.post(f"{self.base}/api/2.0/mlflow/{call}", json=body, timeout=30).raise_for_status().json()

    def get(self, route: str, **query: str) -> httpx.Response:
        return httpx.get(f"{self.base}/{route}", params=query, timeout=30).raise_for_status()

    def search(self, condition: str, order_by: str = "attributes.start_time") -> list[str]:
        """Ids of the runs that MLflow's own search finds."""
        experiments = [self.runs.experiment_id]
        found = self.post("runs/search", experiment_ids=experiments, filter=condition, order_by=[order_by])
        return [run["info"]["run_id"] for run in found.get("runs", [])]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("pages")
    paths = RootPaths(folder / "root")
    runs = fill(paths, folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = server_command(sys.executable, f"sqlite:///{paths.mlflow_database}", paths.mlflow_artifacts, port)
    environ = {**os.environ, **command.env}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command.argv, env=environ, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(f"{base_url(port)}/health", server, folder / "server.log")
            yield Served(base_url(port), runs)
        finally:
            os.killpg(server.pid, 15)
            server.wait(30)


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        assert server.poll() is None, log.read_text()
        try:
            httpx.get(url, timeout=5).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return


def test_the_printed_link_opens_the_points_of_the_newest_sweep_and_no_other_runs(served: Served) -> None:
    url = link(served.base, served.runs)
    route = urlsplit(urlsplit(url).fragment)
    query = {key: values[0] for key, values in parse_qs(route.query).items()}
    assert route.path == f"/experiments/{served.runs.experiment_id}/runs"
    assert query["compareRunsMode"] == "CHART"
    reply = served.get("api/2.0/mlflow/experiments/get", experiment_id=served.runs.experiment_id).json()
    tags = {tag["key"]: tag["value"] for tag in reply["experiment"]["tags"]}
    state = json.loads(json.loads(tags[f"mlflow.sharedViewState.{query['viewStateShareKey']}"])["state"])
    found = served.search(state["searchFilter"], f"{state['orderByKey']} ASC")
    assert sorted(found) == sorted(served.runs.point_run_ids)
    assert len(found) == 3
    [chart] = [chart for chart in state["compareRunCharts"] if chart["type"] == "PARALLEL"]
    assert chart["selectedParams"] == ["factor", "seed"]
    assert chart["selectedMetrics"] == ["summary/step_s", "summary/score_std"], "what every point that succeeded has"
    # the page for a sweep without a view names the same runs
    plain = parse_qs(urlsplit(urlsplit(compare_url(served.base, "1", served.runs.point_run_ids)).fragment).query)
    assert sorted(json.loads(plain["runs"][0])) == sorted(found)


def test_short_tags_find_points_by_verdict_flag_pool_and_setting(served: Served) -> None:
    """What people type into the search box."""
    mine = points_filter(served.runs.run_id)
    found = served.search(mine)
    by_name = {
        run: served.get("api/2.0/mlflow/runs/get", run_id=run).json()["run"]["info"]["run_name"] for run in found
    }
    for condition, names in {
        "tags.verdict = 'completed'": ["infl-f128", "infl-f64"],
        "tags.state = 'failed'": ["infl-f512"],
        "tags.anomaly.oom_recovered = 'true'": ["infl-f64"],
        "tags.pool = 'h200'": ["infl-f64"],
        "tags.settings = 'factor=128'": ["infl-f128"],
        "metrics.`summary/score_std` > 0.1": ["infl-f64"],
        "params.factor = '512'": ["infl-f512"],
    }.items():
        assert sorted(by_name[run] for run in served.search(f"{mine} AND {condition}")) == names, condition


def test_report_and_plots_are_served_as_the_pages_ask_for_them(served: Served) -> None:
    for path, body in {"report.md": b"# Report", "report.html": b"<h1>Report</h1>", "plots/scores.png": PNG}.items():
        assert served.get("get-artifact", path=path, run_uuid=served.runs.run_id).content.startswith(body)
