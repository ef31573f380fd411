"""A Slurm backend on the double, whose clock moves only when told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.backends.base import JobRef, JobRequest
from orchestrator.backends.slurm.backend import SlurmBackend
from orchestrator.clock import FakeClock
from orchestrator.model import Pool, Resources
from tests.orchestrator.backends.slurm.double import SlurmDouble

H100 = Pool("h100", gpus=8, memory_mib=81559)
H200 = Pool("h200", gpus=8, memory_mib=143771)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def slurm(clock: FakeClock) -> Iterator[SlurmDouble]:
    """Jobs stay where they are put."""
    double = SlurmDouble(now=clock.now, runs=False)
    yield double
    double.close()


@pytest.fixture
def backend(slurm: SlurmDouble, clock: FakeClock) -> SlurmBackend:
    return SlurmBackend(slurm, clock)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., JobRequest]:
    """make(name, pool=..., after=...) -> a request with a folder of its own."""

    def make(
        name: str = "job-a1",
        pool: Pool | None = H100,
        after: JobRef | None = None,
        resources: Resources = Resources(gpus=8),  # noqa: B008
    ) -> JobRequest:
        folder = tmp_path / name
        folder.mkdir()
        return JobRequest(name, f"token-{name}", folder, pool, resources, after)

    return make


def ref(request: JobRequest, handle: str) -> JobRef:
    return JobRef(handle, request.name, request.token, request.attempt_dir)
