from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.paths import AttemptPaths
from trainer_ext.records import AttemptSpec, Heartbeat, MemorySample, Outcome

WRAPPER = [sys.executable, "-m", "orchestrator.job"]


@dataclass(frozen=True)
class Attempt:
    """An attempt folder in the making."""

    paths: AttemptPaths
    token: str

    def run(self, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*WRAPPER, str(self.paths.dir)],
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, **environ: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*WRAPPER, str(self.paths.dir)], env={**os.environ, **environ})

    @property
    def outcome(self) -> Outcome:
        return Outcome.from_json(self.paths.outcome.read_text())

    @property
    def heartbeat(self) -> Heartbeat:
        return Heartbeat.from_json(self.paths.heartbeat.read_text())

    @property
    def memory(self) -> list[MemorySample]:
        return [MemorySample.from_json(line) for line in self.paths.memory.read_text().splitlines()]


@pytest.fixture
def make_attempt(tmp_path: Path) -> Callable[..., Attempt]:
    """make_attempt(code, **fields of AttemptSpec): a folder whose job is `python -c code`."""

    def make(code: str = "pass", **fields: Any) -> Attempt:
        paths = AttemptPaths(tmp_path / "attempt")
        paths.dir.mkdir()
        fields.setdefault("command", [sys.executable, "-c", code])
        token = f"token-{tmp_path}"
        spec = AttemptSpec(token=token, sweep="s", point="p", point_hash="h", attempt=1, job_name="s-p-a1", **fields)
        paths.spec.write_text(spec.to_json())
        return Attempt(paths, token)

    return make
