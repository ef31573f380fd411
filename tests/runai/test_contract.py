"""The contract that every backend keeps, kept through the control plane with real processes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.backends.base import Backend, JobRequest
from orchestrator.backends.runai.backend import RunaiBackend
from orchestrator.backends.runai.observation import Patience
from orchestrator.clock import SystemClock
from orchestrator.runai_spec import RunaiSpec
from tests.contracts import test_backend_contract as contract
from tests.runai.faults import accepted_then_dropped
from tests.runai.server import Server

globals().update({name: value for name, value in vars(contract).items() if name.startswith("test_")})
make = contract.make
PATIENCE = Patience(settle_s=0.5, visible_s=2.0, completing_s=5.0, ask_again_s=1.0)


@dataclass
class DoubleSite:
    """A `Site` of the contract: its clients speak to the double of this test."""

    server: Server
    clock: SystemClock = field(default_factory=SystemClock)
    clients: list[RunaiBackend] = field(default_factory=list)

    def client(self) -> Backend:
        environ = {**self.server.environ, "RUNAI_IMAGE": "any", "RUNAI_PYTHON": sys.executable}
        self.clients.append(RunaiBackend.of(RunaiSpec(), environ, clock=self.clock, patience=PATIENCE))
        return self.clients[-1]

    def prepare(self, request: JobRequest, job: contract.Job) -> None:
        contract.write_spec(request, [sys.executable, "-c", job.code])

    def lose_next_reply(self) -> None:
        self.server.plane.faults.add(accepted_then_dropped())

    def close(self) -> None:
        for client in self.clients:
            client.client.close()


@pytest.fixture
def site(server: Server) -> Iterator[DoubleSite]:
    site = DoubleSite(server)
    yield site
    site.close()


def test_what_the_double_runs_is_the_script_in_the_attempt_folder(site, make):
    backend, request = site.client(), make(contract.SUCCEEDS)
    handle = backend.submit(request)
    contract.wait_for(site, backend, contract.ref(request, handle), contract.JobState.ENDED)
    (workload,) = site.server.plane.workloads.values()
    assert [workload.spec["command"], *shlex.split(workload.spec["args"])] == [
        "/bin/sh",
        str(Path(request.attempt_dir) / "runai.sh"),
    ]
