"""Cases of `test_kernels.py`: what the tensor cores' passes over the rows add up to, and the residuals told by them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.materialised import half_token_rows, in_full, normal
from trainer_ext.influence import InfluenceConfig, Responses
from trainer_ext.influence.certificate import probe_weights, probed_residuals
from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.layout import Group, Layout, layout_of
from trainer_ext.influence.segments import group_products
from trainer_ext.influence.systems import GroupSystem

SIDES = (7, 3)
DIM = 21
SIZES = [130, 1, 40, 0, 129, 60]
"""Tokens of each response, two to a prompt; prompts take turns, so that their rows stand apart."""


def _layout() -> Layout:
    response = torch.arange(6).repeat_interleave(torch.tensor(SIZES))
    responses = Responses(torch.arange(6) % 3, torch.arange(6) < 3, torch.ones(6))
    return layout_of(response, responses, InfluenceConfig(), torch.device("cpu"))


def _rows(layout: Layout) -> TokenRows:
    rows = half_token_rows(layout.rows, *SIDES, spread=0.5)
    return TokenRows(rows.large, rows.small, layout.owner, rows.exponent)


def _full(rows: TokenRows, group: Group) -> Tensor:
    return in_full(rows)[group.tokens]


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_each_group_s_rows_meet_its_own_direction(size: float) -> None:
    layout = _layout()
    rows, directions = _rows(layout), size * normal(3, DIM)

    products = group_products(rows, layout, directions)

    assert products.dtype == torch.float64
    for group, direction, product in zip(layout.groups, directions, products, strict=True):
        full = _full(rows, group)
        expected = direction @ full.T @ full
        assert float((product - expected).norm() / expected.norm()) < 1e-5


def _answers(layout: Layout, rows: TokenRows, directions: int) -> dict[int, tuple[GroupSystem, Tensor]]:
    """The exact answer of each group, in an order that is not theirs."""
    answers = {}
    for number in (2, 0, 1):
        group, wanted = layout.groups[number], normal(directions, DIM, seed=number)
        full = _full(rows, group)
        damping = 0.1 * full.square().sum() / DIM
        hessian = full.T @ full + damping * torch.eye(DIM, dtype=torch.float64)
        system = GroupSystem(group, wanted, damping, None, None)
        answers[number] = system, torch.linalg.solve(hessian, wanted.T).T
    return answers


@pytest.mark.parametrize("directions", [1, 8])
def test_exact_answers_have_no_residual_but_that_of_the_arithmetic(directions: int) -> None:
    layout = _layout()
    rows = _rows(layout)

    residuals = probed_residuals(rows, layout, _answers(layout, rows, directions))

    assert residuals.shape == (3,)
    assert float(residuals.max()) < 1e-4


def _spoiled(answers: dict[int, tuple[GroupSystem, Tensor]]) -> dict[int, tuple[GroupSystem, Tensor]]:
    """Answers off by 1%, 2% and 4%, by number of the group."""
    return {number: (system, w * (1 + 0.01 * 2**number)) for number, (system, w) in answers.items()}


def test_the_residual_of_a_single_direction_is_told_exactly() -> None:
    layout = _layout()
    rows = _rows(layout)

    residuals = probed_residuals(rows, layout, _spoiled(_answers(layout, rows, 1)))

    torch.testing.assert_close(residuals, torch.tensor([0.04, 0.01, 0.02], dtype=torch.float64), rtol=1e-2, atol=0)


def test_the_residual_of_many_directions_is_that_of_their_combinations() -> None:
    layout = _layout()
    rows = _rows(layout)
    answers = _spoiled(_answers(layout, rows, 8))

    residuals = probed_residuals(rows, layout, answers)

    expected = [
        (probe_weights(system.directions) @ _errors(rows, system, answer)).norm() for system, answer in answers.values()
    ]
    torch.testing.assert_close(residuals, torch.stack(expected), rtol=1e-3, atol=0)


def test_combinations_tell_the_root_mean_square_of_what_they_combine() -> None:
    directions, relative = normal(8, DIM), normal(8, DIM, seed=1)
    errors = relative * directions.norm(dim=1, keepdim=True)

    told = (probe_weights(directions, 2000) @ errors).norm()

    # the mean of 2000 squares of scatter at most the square root of two
    assert float(told) == pytest.approx(float(relative.square().sum(dim=1).mean().sqrt()), rel=0.05)


def _errors(rows: TokenRows, system: GroupSystem, answer: Tensor) -> Tensor:
    """W H - d, float64 [n, D]."""
    full = _full(rows, system.group)
    return answer @ full.T @ full + system.damping * answer - system.directions


def test_one_bad_direction_of_many_does_not_hide() -> None:
    layout = _layout()
    rows = _rows(layout)
    answers = _answers(layout, rows, 8)
    system, answer = answers[1]
    bad = answer.clone()
    bad[3] *= 2
    answers[1] = system, bad

    residuals = probed_residuals(rows, layout, answers)

    assert float(residuals[2]) == pytest.approx(8**-0.5, rel=1e-2)  # the only term there is, whatever its sign
    assert float(residuals[:2].max()) < 1e-4


def test_a_zero_direction_counts_what_is_there() -> None:
    layout = _layout()
    rows = _rows(layout)
    answers = _answers(layout, rows, 1)
    system, _ = answers[0]
    nothing = torch.zeros(1, DIM, dtype=torch.float64)
    answers[0] = GroupSystem(system.group, nothing, system.damping, None, None), nothing

    assert probed_residuals(rows, layout, answers).isfinite().all()
