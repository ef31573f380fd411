"""Sums and bilinear forms over the tokens of each response are those of gradients in full."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.materialised import in_full, normal, token_rows
from trainer_ext.influence import InfluenceConfig, Responses
from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.layout import Layout, layout_of
from trainer_ext.influence.segments import response_gradients, token_scores

LARGE, SMALL = 4, 3
DIM = LARGE * SMALL
TOGETHER = torch.tensor([2, 2, 2, 0, 4, 4, 3, 3, 3, 3, 5])
"""Response 1 has no token; 4 and 5 are a prompt without contrast."""
APART = TOGETHER[torch.randperm(len(TOGETHER), generator=torch.Generator().manual_seed(0))]
ORDERS = {"together": TOGETHER, "apart": APART}


@pytest.fixture(params=ORDERS)
def layout(request: pytest.FixtureRequest) -> Layout:
    accepted = torch.tensor([True, False, False, True, True, True])
    responses = Responses(torch.tensor([0, 0, 1, 1, 2, 2]), accepted, torch.ones(6))
    return layout_of(ORDERS[request.param], responses, InfluenceConfig(), torch.device("cpu"))


def _rows(layout: Layout, *, powers: bool = False, work: torch.dtype = torch.float64) -> TokenRows:
    rows = token_rows(layout.rows, LARGE, SMALL)
    exponent = -torch.arange(layout.rows, dtype=torch.int32) if powers else None
    return TokenRows(rows.large, rows.small, layout.owner, exponent, work)


@pytest.mark.parametrize("powers", [False, True])
def test_a_response_s_gradient_is_the_sum_over_its_tokens(layout: Layout, powers: bool) -> None:
    rows = _rows(layout, powers=powers)
    full = in_full(rows)

    gradients = response_gradients(rows, layout)

    assert gradients.dtype == torch.float64
    assert len(gradients) == 4
    for number, gradient in enumerate(gradients):
        torch.testing.assert_close(gradient, full[layout.owner == number].sum(dim=0))
    assert not gradients[1].any()


def _scores(full: Tensor, layout: Layout, directions: Tensor, direction_of: Tensor) -> Tensor:
    expected = torch.zeros(len(full), dtype=torch.float64)
    for token, number in enumerate(layout.owner.tolist()):
        if number >= 0:
            expected[token] = full[token] @ directions[direction_of[number]]
    return expected


@pytest.mark.parametrize("powers", [False, True])
@pytest.mark.parametrize(
    "direction_of", [[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0], [3, 1, 1, 0]], ids=["own", "group", "one", "any"]
)
def test_a_token_is_scored_against_the_direction_of_its_response(
    layout: Layout, direction_of: list[int], powers: bool
) -> None:
    rows, directions = _rows(layout, powers=powers), normal(4, DIM)

    scores = token_scores(rows, layout, directions, torch.tensor(direction_of))

    torch.testing.assert_close(scores, _scores(in_full(rows), layout, directions, torch.tensor(direction_of)))


def test_tokens_of_no_response_score_zero() -> None:
    responses = Responses(torch.tensor([0, 0, 1]), torch.tensor([True, False, True]), torch.ones(3))
    layout = layout_of(torch.tensor([0, 2, 2, 1]), responses, InfluenceConfig(), torch.device("cpu"))

    scores = token_scores(_rows(layout), layout, normal(1, DIM), torch.tensor([0, 0]))

    assert [bool(score) for score in scores] == [True, False, False, True]


def test_sums_and_scores_are_made_in_the_type_of_work(layout: Layout) -> None:
    rows, directions, own = _rows(layout, work=torch.float32), normal(4, DIM), torch.arange(4)

    gradients, scores = response_gradients(rows, layout), token_scores(rows, layout, directions, own)

    exact = _rows(layout)
    for got, expected in (
        (gradients, response_gradients(exact, layout)),
        (scores, token_scores(exact, layout, directions, own)),
    ):
        assert got.dtype == torch.float64
        assert 1e-10 < float((got - expected).norm() / expected.norm()) < 1e-6
