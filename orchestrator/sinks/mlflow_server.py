"""The viewer: which command serves the MLflow database, and the links into its pages. Pure.

`mlflow server` by itself starts four workers and a dozen job processes (3.5 GB); one worker without jobs needs a
seventh of that. It listens on loopback alone and refuses requests whose Host header names another machine.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

HOST = "127.0.0.1"
DEFAULT_PORT = 5057
_LOCAL_NAMES = ("localhost", HOST, "mlflow.localhost")
"""Under the last one, which most browsers resolve by themselves, MLflow does not open its panel for a chat assistant."""
_MOST_COMPARED = 100
"""MLflow's pages become slow and then break above this many runs."""


@dataclass(frozen=True)
class ServerCommand:
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    """To be added to the environment."""


def server_command(python: str, tracking_uri: str, artifacts: Path, port: int = DEFAULT_PORT) -> ServerCommand:
    """How to serve a database that the orchestrator writes.

    Args:
        python: interpreter that has mlflow.
        tracking_uri: the database, `sqlite:////...` or another that `mlflow server` takes.
        artifacts: folder for uploads through the server; those of sweeps are where their experiment says.
        port: on loopback.
    """
    argv = [python, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    argv += ["--backend-store-uri", tracking_uri, "--artifacts-destination", str(artifacts)]
    argv += ["--allowed-hosts", ",".join(f"{name}:*" for name in _LOCAL_NAMES)]
    argv += ["--cors-allowed-origins", ",".join(f"http://{name}:{port}" for name in _LOCAL_NAMES)]
    env = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return ServerCommand(tuple(argv), env)


def command_line(command: ServerCommand) -> str:
    """The command as one line to copy into a shell."""
    return " ".join([*(f"{key}={shlex.quote(value)}" for key, value in command.env.items()), shlex.join(command.argv)])


def base_url(port: int = DEFAULT_PORT) -> str:
    return f"http://{HOST}:{port}"


def experiment_url(base: str, experiment_id: str) -> str:
    """The table of all runs; `workflowType` keeps MLflow from showing its pages for language model traces."""
    return f"{base.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs?workflowType=machine_learning"


def view_url(base: str, experiment_id: str, view: str) -> str:
    """The charts of a saved view (`orchestrator.sinks.mlflow_view`)."""
    return f"{experiment_url(base, experiment_id)}&compareRunsMode=CHART&viewStateShareKey={quote(view)}"


def compare_url(base: str, experiment_id: str, run_ids: Sequence[str]) -> str:
    """The page that compares runs side by side; the table of runs where there are fewer than two or too many.

    It opens in parallel coordinates, with parameters of MLflow's own choice.
    """
    if not 2 <= len(run_ids) <= _MOST_COMPARED:
        return experiment_url(base, experiment_id)
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (list(run_ids), [experiment_id]))
    return f"{base.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}"
