from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import backends
from orchestrator.model import Pool
from orchestrator.planning import Target, can_use_gpu, plan_sweep

FACTOR = Path(__file__).parents[2] / "sweeps" / "factor.yaml"
H100 = Pool("h100", gpus=8)
IN_A_CONTAINER = Pool("h100", gpus=8, options={"container": "image"})


def target(backend: str, *pools: Pool) -> Target:
    return Target(backends.load(backend), {pool.name: pool for pool in pools}, tuple(pool.name for pool in pools))


@pytest.mark.parametrize(
    ("where", "build", "expected"),
    [
        (target("local"), "cu130", False),
        (target("local", H100), "cu130", True),
        (target("slurm", H100), "cu130", True),
        (target("slurm", H100), "", True),
        (target("slurm", H100), "cpu", False),
        (target("slurm", IN_A_CONTAINER), "cpu", True),
        (target("fake", H100), "cpu", True),
    ],
)
def test_jobs_can_use_gpus_where_some_are_and_their_torch_is_built_for_them(
    where: Target, build: str, expected: bool
) -> None:
    assert can_use_gpu(where, build) is expected


def test_the_environment_names_what_auto_stands_for() -> None:
    pytest.importorskip("verl")
    planned = plan_sweep(FACTOR, [], "slurm", None, {"ORCHESTRATOR_PROFILE": "h100x8"})
    assert planned.profile == "h100x8"
    assert plan_sweep(FACTOR, [], "slurm", "local", {"ORCHESTRATOR_PROFILE": "h100x8"}).profile == "local"
