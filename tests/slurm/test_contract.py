"""The contract that every backend keeps, kept on the real cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from orchestrator.backends.base import Backend, JobRequest
from orchestrator.backends.slurm.backend import SlurmBackend
from orchestrator.backends.slurm.commands import ASK_TIMEOUT_S, CommandTimeout, Reply, run_command
from orchestrator.clock import SystemClock
from tests.contracts import test_backend_contract as contract
from tests.slurm.cluster import Cluster

globals().update({name: value for name, value in vars(contract).items() if name.startswith("test_")})
make = contract.make


@dataclass
class ClusterSite:
    """A `Site` of the contract: its clients see the cluster of this session."""

    cluster: Cluster
    clock: SystemClock = field(default_factory=SystemClock)
    names: set[str] = field(default_factory=set)
    loses_next_reply: bool = False

    def client(self) -> Backend:
        return SlurmBackend(self.run)

    def run(self, command: Sequence[str], timeout_s: float = ASK_TIMEOUT_S) -> Reply:
        environ = [f"{name}={value}" for name, value in self.cluster.environ.items()]
        reply = run_command(["env", *environ, *command], timeout_s)
        if self.loses_next_reply and command[0] == "sbatch":
            self.loses_next_reply = False
            raise CommandTimeout("sbatch did not answer")
        return reply

    def prepare(self, request: JobRequest, job: contract.Job) -> None:
        self.names.add(request.name)
        contract.write_spec(request, [sys.executable, "-c", job.code])

    def lose_next_reply(self) -> None:
        self.loses_next_reply = True

    def close(self) -> None:
        for name in self.names:
            self.cluster.run("scancel", f"--name={name}")


@pytest.fixture
def site(cluster: Cluster) -> Iterator[ClusterSite]:
    site = ClusterSite(cluster)
    yield site
    site.close()
