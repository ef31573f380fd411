from __future__ import annotations

import json
import shlex
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.sinks.mlflow_server import base_url, command_line, compare_url, server_command, view_url


def test_the_server_listens_on_loopback_with_one_worker_and_without_jobs() -> None:
    command = server_command("/v/bin/python", "sqlite:////r/mlflow.db", Path("/r/mlartifacts"), 5060)
    options = dict(zip(command.argv[4::2], command.argv[5::2], strict=True))
    assert command.argv[:4] == ("/v/bin/python", "-m", "mlflow", "server")
    assert options == {
        "--host": "127.0.0.1",
        "--port": "5060",
        "--workers": "1",
        "--backend-store-uri": "sqlite:////r/mlflow.db",
        "--artifacts-destination": "/r/mlartifacts",
        "--allowed-hosts": "localhost:*,127.0.0.1:*,mlflow.localhost:*",
        "--cors-allowed-origins": "http://localhost:5060,http://127.0.0.1:5060,http://mlflow.localhost:5060",
    }
    assert command.env == {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def test_the_printed_command_survives_a_shell() -> None:
    command = server_command("python", "sqlite:////with blank/mlflow.db", Path("/with blank/a"))
    assert shlex.split(command_line(command))[2:] == list(command.argv)


def test_the_compare_link_names_all_runs() -> None:
    url = compare_url(base_url(5060) + "/", "7", ["r1", "r2"])
    route = urlsplit(urlsplit(url).fragment)
    assert url.startswith("http://127.0.0.1:5060/#/compare-runs?")
    assert " " not in url
    assert '"' not in url
    assert {key: json.loads(value[0]) for key, value in parse_qs(route.query).items()} == {
        "runs": ["r1", "r2"],
        "experiments": ["7"],
    }


def test_the_link_to_a_view_opens_its_charts() -> None:
    assert view_url("http://h:1/", "7", "a b") == (
        "http://h:1/#/experiments/7/runs?workflowType=machine_learning&compareRunsMode=CHART&viewStateShareKey=a%20b"
    )


@pytest.mark.parametrize("number", [0, 1, 101])
def test_too_few_or_too_many_runs_lead_to_the_table(number: int) -> None:
    url = compare_url(base_url(), "7", [f"r{n}" for n in range(number)])
    assert url == "http://127.0.0.1:5057/#/experiments/7/runs?workflowType=machine_learning"
