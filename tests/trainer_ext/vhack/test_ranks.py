"""Projection of gradients that FSDP2 shards over processes, against one process that holds all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainer_ext.influence.over_ranks import RankPool
from trainer_ext.vhack import Projector, VhackConfig, weight_directions
from trainer_ext.vhack.project import Directions
from trainer_ext.vhack.sharding import local, shard_like, whole
from trainer_ext.vhack.singular_values import SingularValues

CASES: dict[str, dict[str, Any]] = {
    "one_sided": {"preserve_magnitude": True},
    "no_gate": {"mode": "no_gate", "overshoot": 1.1},
    "update": {"form": "update"},
    "update of kept length": {"form": "update", "mode": "reverse", "preserve_magnitude": True},
    "route": {"mode": "route"},
    "singular values": {"train": "singular_values"},
}
STEPS = 3


class Two(nn.Module):
    """Modules whose rows do not divide evenly over two ranks, and one with a single row."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.a = nn.Linear(6, 9, bias=False)
            self.b = nn.Linear(9, 5, bias=False)
            self.c = nn.Linear(5, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))
        return out


def v() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        n: torch.linalg.qr(torch.randn(r, k, generator=draw))[0].T.contiguous()
        for n, r, k in (("a", 6, 2), ("b", 5, 3), ("c", 1, 1))
    }


def trained(model: nn.Module, changes: Mapping[str, Any], x: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
    """(whole weights after some steps, metrics)."""
    config = VhackConfig(file="d", **changes)
    weights = {name: getattr(model, name).weight for name in ("a", "b", "c")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    values = SingularValues(weights) if config.train == "singular_values" else None
    if values:
        projector = Projector(values.amounts, Directions(v()), config)
    else:
        projector = Projector(weights, weight_directions(weights, v()), config)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        with projector.around(values.optimizer if values else optimizer):
            values.step({"lr": 1e-2}) if values else optimizer.step()
    metrics = projector.take_metrics()
    del metrics["seconds"]
    return {name: whole(weight.detach()).clone() for name, weight in weights.items()}, metrics


def batch() -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(2))


def on_this_rank(_: Any, __: torch.device, world: int) -> dict[str, tuple[dict[str, Tensor], dict[str, float]]]:
    """Every case on this rank's share of the batch."""
    from torch.distributed.fsdp import fully_shard

    mesh, rank, answers = torch.distributed.init_device_mesh("cpu", (world,)), torch.distributed.get_rank(), {}
    for case, changes in CASES.items():
        model = Two()
        fully_shard(model, mesh=mesh)
        answers[case] = trained(model, changes, batch().chunk(world)[rank])
    weight = model.a.weight
    assert torch.equal(shard_like(whole(weight.detach()), weight), local(weight))
    return answers


@pytest.fixture
def pool() -> Iterator[RankPool]:
    pool = RankPool(2, preload=("torch.distributed.fsdp", __name__))
    yield pool
    pool.close()


def test_two_ranks_do_what_one_does(pool: RankPool) -> None:
    """One test, since the processes start once for it."""
    first, second = pool.ask(on_this_rank, [2, 2])
    for case, changes in CASES.items():
        weights, metrics = trained(Two(), changes, batch())
        for name, weight in weights.items():
            assert torch.equal(first[case][0][name], second[case][0][name]), (case, name)
            assert torch.allclose(first[case][0][name], weight, atol=2e-6), (case, name)
        assert first[case][1] == second[case][1], case
        assert first[case][1] == pytest.approx(metrics, rel=1e-3, abs=1e-6), case
        assert metrics["cin"] > 1e-3, case
