"""Somebody more important takes the node; the job saves, gives way, and goes on where it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.sweeping import ROOT
from tests.runai.plane import ControlPlane
from tests.runai.scenarios import DEFAULTS, PATIENCE_S, Stage, environ
from tests.runai.scheduler import Node
from tests.runai.server import Server

STEPS = 6
SWEEP = {
    "name": "spot",
    "resources": {**DEFAULTS["resources"], "gpus": 8, "ladder": ["h100"]},
    "overrides": [f"trainer.total_training_steps={STEPS}", "synthetic.step_seconds=0.5"],
    "runai": {"grace": 30, "notice": 2},
    "job_name": "point",
}


def test_a_preempted_job_saves_gives_way_and_goes_on_where_it_was(tmp_path: Path) -> None:
    with Server(ControlPlane(tmp_path / "containers", nodes=[Node("h100-0", "h100")])) as server:
        stage = Stage(server, tmp_path, SWEEP)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.runai.mortal", str(stage.file()), str(stage.product.root)],
            cwd=ROOT,
            env={**os.environ, **environ(server)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            stage.wait_for(lambda: steps(stage), "the job has done a step")
            server.plane.somebody_submits("urgent", "h100", "sleep 1")
            output, _ = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
            process.wait()
        played = stage.played(process.returncode, output)
    assert played.tried("point") == [("h100", "preempted"), ("h100", "completed")], output
    first, second = stage.product.attempt_folders("spot")
    saved = json.loads((first / "checkpoint.json").read_text())["saved_after"]
    assert saved >= 1
    assert json.loads((second / "checkpoint.json").read_text())["resumed_after"] == saved
    numbers = [json.loads(line)["step"] for line in (second / "metrics.jsonl").read_text().splitlines()]
    assert numbers == list(range(1, STEPS + 1))
    assert played.complete_runs() == {"point": 1}
    assert played.left_over() == []
    assert server.api.dishonest == []


def steps(stage: Stage) -> int:
    """Steps that the first attempt has logged."""
    logs = [folder / "metrics.jsonl" for folder in stage.product.attempt_folders("spot")]
    return sum(len(log.read_text().splitlines()) for log in logs if log.exists())
