"""The only place that joins file names of the state under `--root`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError
from trainer_ext import records

DEFAULT_ROOT = "runs"
ENV_ROOT = "ORCHESTRATOR_ROOT"


@dataclass(frozen=True)
class AttemptPaths:
    """One attempt folder; the names are those of `trainer_ext.records`."""

    dir: Path

    @property
    def spec(self) -> Path:
        return self.dir / records.ATTEMPT

    @property
    def config(self) -> Path:
        return self.dir / records.CONFIG

    @property
    def claim(self) -> Path:
        return self.dir / records.CLAIM

    @property
    def node(self) -> Path:
        return self.dir / records.NODE

    @property
    def console(self) -> Path:
        return self.dir / records.CONSOLE

    @property
    def metrics(self) -> Path:
        return self.dir / records.METRICS

    @property
    def memory(self) -> Path:
        return self.dir / records.MEMORY

    @property
    def heartbeat(self) -> Path:
        return self.dir / records.HEARTBEAT

    @property
    def outcome(self) -> Path:
        return self.dir / records.OUTCOME

    @property
    def checkpoint(self) -> Path:
        return self.dir / records.CHECKPOINT

    @property
    def stop_requested(self) -> Path:
        return self.dir / records.STOP_REQUESTED

    @property
    def stacks(self) -> Path:
        return self.dir / records.STACKS

    @property
    def influence(self) -> Path:
        return self.dir / records.INFLUENCE_DIR


@dataclass(frozen=True)
class RootPaths:
    """Everything under the state folder. `root` is absolute."""

    root: Path

    @classmethod
    def resolve(cls, option: str | Path | None, environ: Mapping[str, str] = os.environ) -> RootPaths:
        """`--root`, else `ORCHESTRATOR_ROOT`, else `runs/` in the working directory.

        Raises:
            UsageError: a character that MLflow, which takes the path of its database as a URL, reads as something else.
        """
        root = Path(option or environ.get(ENV_ROOT) or DEFAULT_ROOT).expanduser().absolute()
        if bad := [char for char in "?%" if char in str(root)]:
            raise UsageError(
                f"the state folder {root} must not hold {' or '.join(bad)} in its path; choose another --root"
            )
        return cls(root)

    @property
    def database(self) -> Path:
        return self.root / "orchestrator.db"

    @property
    def mlflow_database(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlartifacts"

    @property
    def assets(self) -> Path:
        """Models and prompts that jobs made for themselves, shared by all sweeps."""
        return self.root / "assets"

    def sweep(self, sweep: str) -> Path:
        return self.root / "sweeps" / sweep

    def lock(self, sweep: str) -> Path:
        return self.sweep(sweep) / ".lock"

    def journal(self, sweep: str) -> Path:
        """Optuna's memory of the sweep's search."""
        return self.sweep(sweep) / "search.journal"

    @property
    def templates(self) -> Path:
        """The user's own templates of sections of the report."""
        return self.root / "templates"

    def report(self, sweep: str) -> Path:
        return self.sweep(sweep) / "report.md"

    def comparison(self, first: str, second: str) -> Path:
        return self.sweep(second) / f"against-{first}.md"

    def point(self, sweep: str, point_id: str) -> Path:
        return self.sweep(sweep) / point_id

    def attempt(self, sweep: str, point_id: str, number: int) -> AttemptPaths:
        return AttemptPaths(self.point(sweep, point_id) / str(number))
