"""Sweeps that users run, through the double: the command line, the jobs and the sinks are real, the control plane is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.played import PlayedSweep, as_a_user
from tests.e2e.sweeping import Product, wait_for
from tests.runai.server import Server
from tests.runai.workload import OVER, Workload
from trainer_ext.records import ENV_ATTEMPT_TOKEN

PATIENCE_S = 150.0
DEFAULTS = {
    "config": "synthetic",
    "backend": "runai",
    "pools": {"h100": {"gpus": 8, "memory_mib": 81_559}, "h200": {"gpus": 8, "memory_mib": 143_771}},
    "resources": {"gpus": 1, "ladder": ["h100", "h200"], "time": "10m"},
    "retry": {"backoff": {"base": 0.1}},
    "budget": {"max_parallel": 8},
    "runai": {"grace": 5},
}


def environ(server: Server) -> dict[str, str]:
    """What a user of this machine has to set."""
    return {**server.environ, "RUNAI_IMAGE": "any", "RUNAI_PYTHON": sys.executable}


@dataclass(frozen=True)
class Stage:
    """One sweep on one control plane, while it runs."""

    server: Server
    folder: Path
    sweep: Mapping[str, Any]
    product: Product = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "product", Product(self.folder / "runs", environ(self.server)))

    @property
    def name(self) -> str:
        return str(self.sweep["name"])

    def file(self) -> Path:
        """The sweep file; JSON is YAML."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.name}.yaml"
        path.write_text(json.dumps(DEFAULTS | dict(self.sweep), indent=1))
        return path

    def play(self, happens: Callable[[Stage], None] = lambda _stage: None) -> Played:
        """From the sweep file to the end, while `happens` happens."""
        return self.played(*as_a_user(self, self.file(), happens, PATIENCE_S))

    def played(self, code: int, output: str) -> Played:
        return Played(self, code, output, self.product.json("status", self.name))

    def wait_for(self, condition: Callable[[], Any], what: str) -> None:
        wait_for(condition, PATIENCE_S, f"{self.name}: {what}")

    def begun(self, seed: int) -> list[Workload]:
        """The workloads whose job has this seed and has begun."""
        return [
            self.workload(folder)
            for folder in self.product.attempt_folders(self.name)
            if (folder / "claim").exists()
            and json.loads((folder / "config.yaml").read_text())["synthetic"]["seed"] == seed
        ]

    def workload(self, folder: Path) -> Workload:
        """The workload of an attempt."""
        token = json.loads((folder / "attempt.json").read_text())["token"]
        workloads = list(self.server.plane.workloads.values())
        return next(one for one in workloads if one.environment.get(ENV_ATTEMPT_TOKEN) == token)


class Played(PlayedSweep[Stage]):
    """A sweep that came to its end."""

    def left_over(self) -> list[str]:
        """Workloads of the sweep that would still run, or start again."""
        with self.stage.server.plane.lock:
            ours = [one for one in self.stage.server.plane.workloads.values() if ENV_ATTEMPT_TOKEN in one.environment]
            return [one.name for one in ours if one.stage not in OVER and one.desired == "Running"]
