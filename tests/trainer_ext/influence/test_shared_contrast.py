"""Directions from two sums a rank are those of the whole Omega, for every option and any deal of responses to ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from trainer_ext.influence import InfluenceConfig
from trainer_ext.influence.contrast import contrast_matrix, response_weights
from trainer_ext.influence.shared_contrast import SharedContrast

CPU = torch.device("cpu")
DEALS = {
    "both classes on each rank": ([[1, 0, 0], [0, 1]], [[0.5, -1.0, 0.0], [2.0, 1.0]]),
    "a class a rank": ([[1, 1], [0, 0, 0]], [[0.5, -1.0], [2.0, 0.0, 1.0]]),
    "an empty rank first": ([[], [1, 0], [0, 1, 1]], [[], [0.3, -0.2], [0.0, 1.0, 4.0]]),
    "the only one of its class": ([[1], [0, 0], [0]], [[2.0], [-1.0, 0.5], [0.25]]),
    "advantages on one rank alone": ([[1, 0], [1, 0]], [[0.0, 0.0], [1.0, -3.0]]),
    "one rank": ([[1, 0, 1, 0, 0]], [[1.0, 2.0, 3.0, 4.0, 5.0]]),
}


def _ranks(deal: str) -> tuple[list[Tensor], list[Tensor]]:
    accepted, advantage = DEALS[deal]
    return [torch.tensor(flags, dtype=torch.bool) for flags in accepted], [
        torch.tensor(values, dtype=torch.float64) for values in advantage
    ]


def _contrasts(deal: str, config: InfluenceConfig) -> list[SharedContrast]:
    accepted, advantage = _ranks(deal)
    found = [SharedContrast.of(accepted, advantage, rank, config, CPU) for rank in range(len(accepted))]
    return [contrast for contrast in found if contrast is not None]


@pytest.mark.parametrize("leave_one_out", ["keep", "renorm"])
@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("agg", ["sum", "mean", "advantage"])
@pytest.mark.parametrize("deal", DEALS)
def test_directions_are_those_of_the_whole_matrix(deal: str, agg: Any, exclude: bool, leave_one_out: Any) -> None:
    config = InfluenceConfig(contrastive_agg=agg, exclude_self_response=exclude, leave_one_out=leave_one_out)
    accepted, advantage = _ranks(deal)
    weights = response_weights(torch.cat(accepted), torch.cat(advantage), config)
    assert weights is not None
    omega = contrast_matrix(weights, torch.cat(accepted), config)
    gradients = torch.randn(len(weights), 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = omega @ gradients

    contrasts = _contrasts(deal, config)
    own = gradients.split([len(flags) for flags in accepted])
    sums = torch.stack([contrast.sums(part) for contrast, part in zip(contrasts, own, strict=True)])
    found = [contrast.directions(part, sums) for contrast, part in zip(contrasts, own, strict=True)]

    assert len(found) == len(accepted)
    for contrast, directions in zip(contrasts, found, strict=True):
        assert torch.equal(contrast.omega, omega)
        expected = whole[contrast.own] if exclude else whole
        assert torch.allclose(directions, expected, rtol=1e-13, atol=1e-13)


def test_a_large_own_gradient_leaves_the_rest_of_its_direction_exact() -> None:
    config = InfluenceConfig(contrastive_agg="sum", exclude_self_response=True)
    first, second = _contrasts("both classes on each rank", config)
    own, other = torch.ones(3, 2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    own[0] = 1e20
    sums = torch.stack([first.sums(own), second.sums(other)])

    assert first.directions(own, sums)[0].tolist() == [-2.0, -2.0]


def test_one_class_in_all_ranks_together_is_no_contrast() -> None:
    accepted = [torch.ones(2, dtype=torch.bool), torch.ones(1, dtype=torch.bool)]
    advantage = [torch.ones(2), torch.ones(1)]

    assert SharedContrast.of(accepted, advantage, 0, InfluenceConfig(), CPU) is None
