"""The seeded agent loop in another process: Ray ships it, and a class over one that Ray has wrapped does not arrive whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ray
from ray import cloudpickle

from trainer_ext.verl_plugin.agent_loop import AgentLoopProcess

ARRIVED = """
import runpy, sys
runpy.run_path(sys.argv[1])
from ray import cloudpickle
process = cloudpickle.load(open(sys.argv[2], "rb"))
process()
try:
    process("config alone")
except TypeError as error:
    print(error)
"""


def test_a_process_becomes_verls_worker_where_ray_starts_it(tmp_path: Path) -> None:
    shipped = ray.remote(AgentLoopProcess).__ray_metadata__.modified_class
    (tmp_path / "process").write_bytes(cloudpickle.dumps(shipped))
    environment = Path(__file__).parent / "conftest.py"
    command = [sys.executable, "-c", ARRIVED, str(environment), str(tmp_path / "process")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == "AgentLoopWorker.__init__() missing 1 required positional argument: 'llm_client'\n"
