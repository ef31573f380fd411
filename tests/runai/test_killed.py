"""The orchestrator dies by SIGKILL between what it did and what it wrote down, and the next one goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from tests.e2e.sweeping import ROOT
from tests.runai.scenarios import PATIENCE_S, Stage, environ
from tests.runai.server import Server

LIVES = 12
"""More than there are deadly steps."""
SWEEP = {
    "name": "killed",
    "overrides": ["synthetic.fail_on_pools=[h100]", "synthetic.fail=cuda_oom"],
    "job_name": "point",
}


def live(stage: Stage, spec: Path, deadly: Collection[str]) -> subprocess.CompletedProcess[str]:
    """One life, as a process; it says after which step it died."""
    return subprocess.run(
        [sys.executable, "-m", "tests.runai.mortal", str(spec), str(stage.product.root), *deadly],
        cwd=ROOT,
        env={**os.environ, **environ(stage.server)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_killed_when_only_the_outside_knows_what_was_done_it_goes_on_and_nothing_runs_twice(
    server: Server, tmp_path: Path
) -> None:
    """Around every other step it dies in imagined time, in `test_faults.py`; this one is a real SIGKILL."""
    stage = Stage(server, tmp_path, SWEEP)
    spec, died, survived = stage.file(), Counter[str](), set[str]()
    for _ in range(LIVES):
        life = live(stage, spec, [step for step in ("start_attempt", "POST") if step not in survived])
        if life.returncode != -signal.SIGKILL:
            break
        # whoever comes next repeats a request until what it did is in the store; each is deadly once
        step = life.stdout.split()[-1]
        died[step] += 1
        survived = {"POST"} if step == "POST" else set()
    assert life.returncode == 0, life.stdout + life.stderr
    played = stage.played(life.returncode, life.stdout)
    assert played.tried("point") == [("h100", "gpu_oom"), ("h200", "completed")]
    assert died == {"start_attempt": 2, "POST": 2}
    assert len(server.plane.workloads) == 2
    assert played.complete_runs() == {"point": 1}
    assert played.left_over() == []
