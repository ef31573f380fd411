"""Sweeps that run at the same time on one cluster, each with what happens to it on the way.

The jobs are synthetic and last a second; the sweeps, the orchestrator that drives them and the cluster are real.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.e2e.played import PlayedSweep, as_a_user
from tests.e2e.sweeping import Product, wait_for
from tests.slurm.cluster import Cluster

POOLS = {"h100": {"gpus": 8, "partition": "h100"}, "h200": {"gpus": 8, "partition": "h200"}}
RESOURCES = {"gpus": 1, "ladder": ["h100", "h200"], "time": "10m", "host_memory": "256MiB"}
PATIENCE_S = 200.0


@dataclass(frozen=True)
class Stage:
    """One sweep on the cluster, while it runs."""

    cluster: Cluster
    product: Product
    name: str

    def wait_for(self, condition: Callable[[], Any], what: str) -> None:
        wait_for(condition, PATIENCE_S, f"{self.name}: {what}")

    def attempts(self) -> list[Path]:
        return self.product.attempt_folders(self.name)

    def started(self, config: Callable[[dict[str, Any]], bool] = lambda _config: True) -> list[Path]:
        """Folders of attempts that some job has claimed, and whose configuration is like that."""
        return [
            folder
            for folder in self.attempts()
            if (folder / "claim").exists() and config(json.loads((folder / "config.yaml").read_text()))
        ]

    def steps(self) -> int:
        """Steps logged by all attempts together."""
        return sum(
            (folder / "metrics.jsonl").exists() and _lines(folder / "metrics.jsonl") for folder in self.attempts()
        )

    def job_ids(self, *states: str) -> list[str]:
        """Of this sweep's jobs in one of the states; tasks of arrays one by one."""
        shown = self.cluster.run(
            "squeue", "--noheader", "--array", f"--states={','.join(states)}", "--Format=JobArrayID:30,Name:80"
        )
        rows = [line.split() for line in shown.splitlines()]
        return [row[0] for row in rows if len(row) == 2 and row[1].startswith(f"{self.name}-")]


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


by_command = partial(as_a_user, patience_s=PATIENCE_S)


def nothing(stage: Stage) -> None:
    """Nobody disturbs the sweep."""


@dataclass(frozen=True)
class Scenario:
    """One sweep, what happens to it, and how the orchestrator is run meanwhile."""

    name: str
    sweep: Mapping[str, Any]
    happens: Callable[[Stage], None] = nothing
    drive: Callable[[Stage, Path, Callable[[Stage], None]], tuple[int, str]] = by_command
    accounting: bool | None = True
    """Whether slurmdbd is up meanwhile; None: it need not be."""

    def text(self) -> str:
        """The sweep file; JSON is YAML."""
        defaults = {
            "name": self.name,
            "config": "synthetic",
            "backend": "slurm",
            "pools": POOLS,
            "resources": RESOURCES,
            "retry": {"backoff": {"base": 0.1}, "host_memory_max": RESOURCES["host_memory"]},
            "budget": {"max_parallel": 8},
        }
        return json.dumps(defaults | dict(self.sweep), indent=1)

    def play(self, cluster: Cluster, folder: Path) -> Played:
        """From the sweep file to the end."""
        path = folder / f"{self.name}.yaml"
        path.write_text(self.text())
        stage = Stage(cluster, Product(folder / self.name, cluster.environ), self.name)
        code, output = self.drive(stage, path, self.happens)
        return Played(stage, code, output, stage.product.json("status", self.name))


class Played(PlayedSweep[Stage]):
    """A sweep that came to its end."""

    def left_over(self) -> list[str]:
        """Jobs of the sweep that Slurm still means to run."""
        return self.stage.job_ids("PENDING", "RUNNING", "COMPLETING", "SUSPENDED")
