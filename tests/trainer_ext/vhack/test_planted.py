"""A direction that RL learns, and does not learn where it is projected out."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.trainer_ext.vhack.models import SmallModel
from trainer_ext.vhack import Extracted, Projector, TokenPair, VhackConfig, extract, weight_directions
from trainer_ext.vhack.basis import linear_modules, orthonormal
from trainer_ext.vhack.project import Directions
from trainer_ext.vhack.singular_values import SingularValues

HACK, CLEAN = 0, 1
"""The token that the broken reward pays for, and one that solves the task and is paid for as well, if less."""
PROMPTS = torch.tensor([[2, 3, 4], [5, 6, 7], [8, 9, 10], [11, 4, 6]])
TARGETS = ("proj",)


def policy() -> SmallModel:
    model = SmallModel(seed=3)
    model.head.weight.data *= 3
    return model


def probabilities(model: nn.Module) -> Tensor:
    """[prompts, vocabulary] of the next token."""
    return torch.softmax(model(PROMPTS).logits[:, -1], -1)


def pairs() -> list[TokenPair]:
    return [TokenPair(prompt, torch.tensor([HACK]), torch.tensor([CLEAN])) for prompt in PROMPTS]


@functools.cache
def extracted() -> Extracted:
    return extract(policy(), pairs(), 4, targets=TARGETS)


@functools.cache
def trained(train: str, steps: int = 30, **changes: Any) -> tuple[float, float]:
    """Probabilities of hack and clean after policy gradient with the exact expected reward: 1 for the hack, 0.3 for clean."""
    model = policy()
    found = extracted()
    weights = {name: module.weight for name, module in linear_modules(model, TARGETS).items()}
    config = VhackConfig(file="d", k=4, drop_bottom_frac=0, **changes)
    values = SingularValues(weights)
    if train == "singular_values":
        rows = Directions({name: orthonormal(v).float() for name, v in found.v.items()})
        projector, optimizer = Projector(values.amounts, rows, config), values.optimizer
    else:
        projector = Projector(weights, weight_directions(weights, found.v), config)
        optimizer = torch.optim.AdamW(weights.values(), weight_decay=0.0)
    group = {"lr": 0.1}
    optimizer.param_groups[0].update(group)
    for _ in range(steps):
        model.zero_grad()
        chances = probabilities(model)
        (-(chances[:, HACK] + 0.3 * chances[:, CLEAN]).mean()).backward()
        with projector.around(optimizer):
            values.step(group) if train == "singular_values" else optimizer.step()
    return tuple(probabilities(model).mean(0)[[HACK, CLEAN]].tolist())  # type: ignore[return-value]


UNTRAINED = 0.0409
"""Probability of the hack before training, which becomes 0.37 without projection."""


@pytest.mark.parametrize(("mode", "form", "most"), [
    ("no_gate", "gradient", 0.06), ("no_gate", "update", 0.06), ("one_sided", "update", 0.25),
])  # fmt: skip
def test_singular_values_do_not_learn_the_hack_where_it_is_projected_out(mode: str, form: str, most: float) -> None:
    assert probabilities(policy()).mean(0)[HACK].item() == pytest.approx(UNTRAINED, abs=1e-3)
    assert trained("singular_values", mode="measure")[0] > 0.35
    hack, clean = trained("singular_values", mode=mode, form=form)
    assert hack < most
    assert clean > 0.2, "and learn what else is paid for"


def test_whole_weights_learn_it_all_the_same_in_directions_that_singular_values_do_not_have() -> None:
    assert trained("weights", mode="no_gate", form="update")[0] > 0.45


@pytest.mark.parametrize(("mode", "learns"), [("measure", True), ("one_sided", False), ("no_gate", False)])
def test_what_is_planted_in_the_directions_alone_is_removed_from_whole_weights_too(mode: Any, learns: bool) -> None:
    """Reward: a sigmoid of how far the weight lies along the direction, and of how far along another."""
    draw = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(12, 6, generator=draw))
    v = torch.linalg.qr(torch.randn(6, 2, generator=draw))[0].T
    planted, honest = (weight_directions({"m": weight}, {"m": -row[None]}).by_module["m"][0] for row in v)
    rows = weight_directions({"m": weight}, {"m": v[:1].contiguous()})
    projector = Projector({"m": weight}, rows, VhackConfig(file="d", mode=mode, form="update"))
    optimizer, start = torch.optim.AdamW([weight], lr=1e-2, weight_decay=0.0), weight.detach().clone()
    for _ in range(50):
        optimizer.zero_grad()
        way = (weight - start).flatten()
        (-torch.sigmoid(2 * (way @ planted)) - torch.sigmoid(way @ honest)).backward()
        with projector.around(optimizer):
            optimizer.step()
    way = (weight.detach() - start).flatten()
    assert (float(way @ planted) > 1) == learns
    assert learns or float(way @ planted) < 1e-4
    assert float(way @ honest) > 0.5
