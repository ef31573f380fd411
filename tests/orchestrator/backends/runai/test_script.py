"""What a container runs, run here with stand-ins for the interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.backends.runai import script
from orchestrator.errors import BackendError

STAND_IN = """\
#!/bin/sh
echo "$@ | node $ORCHESTRATOR_NODE | ray ${RAY_ADDRESS:-none}" >> "$CALLS"
case "$*" in *--address*) exec sh -c "$WORKER" ;; esac
"""


class Container:
    """A folder with a stand-in for the interpreter, which writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "attempt 1"
        self.folder.mkdir()
        self.python = folder / "python"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)
        self.calls = folder / "calls"

    def run(self, nodes: int, **environ: str) -> subprocess.CompletedProcess[bytes]:
        path = self.folder / script.NAME
        path.write_text(script.text(self.folder, str(self.python), nodes))
        known = {"PATH": os.environ["PATH"], "CALLS": str(self.calls), "WORKER": "exit 0", "RUNAI_RETRY_S": "0"}
        return subprocess.run(["/bin/sh", str(path)], env={**known, **environ}, timeout=30, check=False)

    @property
    def said(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def test_one_node_runs_the_wrapper_and_knows_its_name(container: Container) -> None:
    assert container.run(1, NODE_NAME="node-7").returncode == 0
    assert container.said == [f"-m orchestrator.job {container.folder} | node node-7 | ray none"]


def test_the_master_of_several_starts_rays_head_and_then_the_wrapper(container: Container) -> None:
    assert container.run(2, RANK="0", NODE_NAME="node-7").returncode == 0
    head, wrapper = container.said
    assert head.startswith(f"-m ray.scripts.scripts start --head --port={script.RAY_PORT}")
    assert wrapper == f"-m orchestrator.job {container.folder} | node node-7 | ray auto"


def test_a_worker_joins_the_head_and_never_runs_the_wrapper(container: Container) -> None:
    assert container.run(2, RANK="1", MASTER_ADDR="master").returncode == 0
    assert container.said == [
        f"-m ray.scripts.scripts start --address=master:{script.RAY_PORT} --block | node  | ray none"
    ]


def test_a_worker_waits_for_the_head_and_ends_well_once_the_job_is_over(container: Container) -> None:
    """Ray calls the loss of its head an error; here it is how a job ends."""
    outcome = container.folder / "outcome.json"
    twice = f'n=$(grep -c address "$CALLS"); [ "$n" -ge 3 ] && touch "{outcome}"; exit 1'
    assert container.run(2, RANK="1", MASTER_ADDR="master", WORKER=twice).returncode == 0
    assert len(container.said) == 3


def test_the_wrapper_takes_the_shells_place_and_hears_its_signals(tmp_path: Path) -> None:
    ready, told = tmp_path / "ready", tmp_path / "told"
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport os, pathlib, signal\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(told)!r}).touch(), os._exit(0)))\n"
        f"pathlib.Path({str(ready)!r}).touch()\nwhile True: signal.pause()\n"
    )
    python.chmod(0o755)
    path = tmp_path / script.NAME
    path.write_text(script.text(tmp_path, str(python)))
    process = subprocess.Popen(["/bin/sh", str(path)])
    try:
        while not ready.exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        assert told.exists()
    finally:
        process.kill()
        process.wait()


def test_a_path_that_a_server_could_split_is_refused() -> None:
    assert script.argument(Path("/shared/runs/s/0123/1")) == "/shared/runs/s/0123/1/runai.sh"
    for path in ("/my runs/1", "/runs/$x/1", "/runs/'/1", "/runs/ü/1"):
        with pytest.raises(BackendError, match="plain characters"):
            script.argument(Path(path))
