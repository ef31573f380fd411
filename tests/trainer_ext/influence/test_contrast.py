from __future__ import annotations

from typing import Any

import pytest
import torch

from trainer_ext.influence import InfluenceConfig
from trainer_ext.influence.contrast import contrast_matrix, group_members, response_weights

ACCEPTED = torch.tensor([True, False, True, False, False])
ADVANTAGE = torch.tensor([0.5, -1.0, 2.0, 0.0, 0.25])


def _weights(config: InfluenceConfig) -> torch.Tensor:
    weights = response_weights(ACCEPTED, ADVANTAGE, config)
    assert weights is not None
    return weights


@pytest.mark.parametrize(
    ("agg", "weights"),
    [
        ("sum", [1, -1, 1, -1, -1]),
        ("mean", [1 / 2, -1 / 3, 1 / 2, -1 / 3, -1 / 3]),
        ("advantage", [0.5, -1.0, 2.0, 0.0, 0.25]),
    ],
)
def test_weights_are_signed_by_class_or_given(agg: Any, weights: list[float]) -> None:
    assert _weights(InfluenceConfig(contrastive_agg=agg)).tolist() == pytest.approx(weights)


@pytest.mark.parametrize("agg", ["sum", "mean", "advantage"])
@pytest.mark.parametrize("accepted", [[True, True], [False, False], [True], []])
def test_one_class_alone_is_no_contrast(agg: Any, accepted: list[bool]) -> None:
    advantage = torch.ones(len(accepted))

    assert (
        response_weights(torch.tensor(accepted, dtype=torch.bool), advantage, InfluenceConfig(contrastive_agg=agg))
        is None
    )


def test_zero_advantages_are_no_contrast_only_as_weights() -> None:
    accepted, zero = torch.tensor([True, False]), torch.zeros(2)

    assert response_weights(accepted, zero, InfluenceConfig(contrastive_agg="advantage")) is None
    assert response_weights(accepted, zero, InfluenceConfig(contrastive_agg="mean")) is not None


def test_all_responses_share_one_direction_unless_the_own_is_excluded() -> None:
    config = InfluenceConfig()

    assert torch.equal(contrast_matrix(_weights(config), ACCEPTED, config), _weights(config)[None, :])


def test_keep_leaves_the_other_weights_as_they_are() -> None:
    config = InfluenceConfig(exclude_self_response=True, leave_one_out="keep")

    omega = contrast_matrix(_weights(config), ACCEPTED, config)

    assert torch.equal(omega, _weights(config).expand(5, 5) * (1 - torch.eye(5)))


def test_renorm_makes_both_classes_weigh_one_again() -> None:
    config = InfluenceConfig(exclude_self_response=True, leave_one_out="renorm")

    omega = contrast_matrix(_weights(config), ACCEPTED, config)

    assert torch.equal(omega.diagonal(), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(omega[:, ACCEPTED].sum(dim=1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(omega[:, ~ACCEPTED].sum(dim=1), -torch.ones(5, dtype=torch.float64))


def test_the_only_one_of_its_class_leaves_no_term() -> None:
    config = InfluenceConfig(exclude_self_response=True, leave_one_out="renorm")
    accepted = torch.tensor([True, False, False])
    weights = response_weights(accepted, torch.ones(3), config)
    assert weights is not None

    omega = contrast_matrix(weights, accepted, config)

    assert omega.tolist() == [[0.0, -0.5, -0.5], [1.0, 0.0, -1.0], [1.0, -1.0, 0.0]]


@pytest.mark.parametrize("agg", ["sum", "advantage"])
def test_renorm_changes_nothing_but_means(agg: Any) -> None:
    keep, renorm = (
        InfluenceConfig(exclude_self_response=True, contrastive_agg=agg, leave_one_out=how)
        for how in ("keep", "renorm")
    )

    assert torch.equal(
        contrast_matrix(_weights(keep), ACCEPTED, keep), contrast_matrix(_weights(renorm), ACCEPTED, renorm)
    )


def test_groups_are_prompts_or_everything() -> None:
    group = torch.tensor([9, 2, 9, 5])

    assert [m.tolist() for m in group_members(group, InfluenceConfig())] == [[1], [3], [0, 2]]
    assert [m.tolist() for m in group_members(group, InfluenceConfig(scope="all_selected"))] == [[0, 1, 2, 3]]
