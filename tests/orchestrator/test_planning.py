from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import backends
from orchestrator.backends.fake import FakeBackend
from orchestrator.errors import SpecError, Unobservable
from orchestrator.model import Pool
from orchestrator.planning import Target, can_use_gpu, own_pools, plan_sweep
from orchestrator.predicting import with_predictions
from orchestrator.spec_model import SweepSpec

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


LADDER = """\
# Does a smaller card get smaller micro-batches?
name: ladder
config: influence
profile: h200x8
backend: slurm
pools:
  h100: {{gpus: 8, memory_mib: 81559, patch: {{{patch}}}}}
  h200: {{gpus: 8, memory_mib: 143771}}
resources: {{gpus: 8, ladder: [h100, h200]}}
"""


def test_what_a_pool_changes_is_predicted_for_it_and_leaves_the_points_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("verl")
    points = {}
    for name, patch in {"as it is": "", "halved": 'actor.ppo_max_token_len_per_gpu: "x/2"'}.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(LADDER.format(patch=patch))
        (points[name],) = with_predictions(plan_sweep(file, [], None, None, {}), tmp_path).points
    plain, halved = points["as it is"], points["halved"]
    assert plain.hash == halved.hash
    assert plain.predicted
    assert halved.predicted
    assert halved.predicted.on["h200"] == plain.predicted.on["h200"]
    before, after = plain.predicted.on["h100"].gpu_bytes, halved.predicted.on["h100"].gpu_bytes
    assert before
    assert after
    assert after.value < before.value


def test_a_pools_patch_that_no_point_has_a_key_for_is_refused_where_it_stands(tmp_path: Path) -> None:
    pytest.importorskip("verl")
    file = tmp_path / "ladder.yaml"
    file.write_text(LADDER.format(patch='actor.ppo_max_token_len: "x/2"'))
    with pytest.raises(SpecError, match=r"ladder.yaml:7: pools.h100.patch.actor.ppo_max_token_len: .*no single value"):
        plan_sweep(file, [], None, None, {})


def test_a_cluster_that_cannot_be_asked_for_its_pools_stops_only_what_names_none() -> None:
    class Away(FakeBackend):
        def pools(self) -> list[Pool]:
            raise Unobservable("no answer")

    spec = SweepSpec.model_validate({"name": "s", "pools": {"h100": {"gpus": 8}}})
    assert own_pools(Away(), spec) == {}
    with pytest.raises(Unobservable, match="no answer"):
        own_pools(Away(), SweepSpec.model_validate({"name": "s"}))
