"""The rows, the two routes and the residual that judges them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer_ext.influence.curvature import DenseRows, TokenRows, apply, combine, damping, hessian
from trainer_ext.influence.solve import SOLVERS, DampedSystem, relative_residual, solve

GENERATOR = torch.Generator()


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed() -> None:
    GENERATOR.manual_seed(0)


def _token_rows(tokens: int = 23, block_bytes: int = 5 * 12 * 8) -> tuple[TokenRows, Tensor]:
    """Rows in blocks of five (the last of three), and the same rows materialised."""
    rows = TokenRows(_normal(tokens, 3), _normal(tokens, 4), block_bytes=block_bytes)
    return rows, torch.einsum("tb,ta->tba", rows.output_grads, rows.inputs).reshape(tokens, 12)


@pytest.mark.parametrize("block_bytes", [1, 5 * 12 * 8, 2**20])
def test_factored_rows_equal_materialised_rows(block_bytes: int) -> None:
    rows, dense = _token_rows(block_bytes=block_bytes)
    coefficients, directions = _normal(2, 23), _normal(2, 12)

    torch.testing.assert_close(torch.cat(list(rows.blocks(torch.float64))), dense)
    torch.testing.assert_close(rows.gram(), dense @ dense.T)
    torch.testing.assert_close(rows.trace(), float((dense.T @ dense).trace()))
    torch.testing.assert_close(hessian(rows, like=directions), dense.T @ dense)
    torch.testing.assert_close(combine(rows, coefficients), coefficients @ dense)
    torch.testing.assert_close(apply(rows, 0.3, directions), directions @ (dense.T @ dense + 0.3 * torch.eye(12)))


def test_dense_rows_agree_with_factored_ones() -> None:
    rows, dense = _token_rows()

    assert DenseRows(dense).count == rows.count
    assert DenseRows(dense).dim == rows.dim
    torch.testing.assert_close(DenseRows(dense).gram(), rows.gram())
    torch.testing.assert_close(DenseRows(dense).trace(), rows.trace())


def test_blocks_hold_no_more_than_they_may() -> None:
    rows, _ = _token_rows(block_bytes=5 * 12 * 8)

    assert [len(block) for block in rows.blocks(torch.float64)] == [5, 5, 5, 5, 3]


def test_default_damping_is_a_tenth_of_the_mean_diagonal() -> None:
    rows, dense = _token_rows()

    assert damping(rows, -1.0) == pytest.approx(0.1 * float((dense.T @ dense).diagonal().mean()))
    assert damping(rows, 0.0) == damping(rows, -1.0)
    assert damping(rows, 2.5) == 2.5


@pytest.mark.parametrize("route", SOLVERS)
@pytest.mark.parametrize("tokens", [5, 23])
def test_each_route_solves_the_damped_system(route: str, tokens: int) -> None:
    rows, dense = _token_rows(tokens)
    coefficients = _normal(3, tokens)
    system = DampedSystem(rows, 0.7, coefficients, coefficients @ dense)

    solution, residual = solve(system, route)  # type: ignore[arg-type]

    matrix = dense.T @ dense + 0.7 * torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(solution, coefficients @ dense @ torch.linalg.inv(matrix), rtol=1e-10, atol=1e-12)
    assert residual < 1e-12


def test_residual_is_the_worst_right_hand_side() -> None:
    rows, dense = _token_rows()
    coefficients = _normal(3, 23)
    system = DampedSystem(rows, 0.7, coefficients, coefficients @ dense)
    solution, _ = solve(system, "direct")
    solution[1] *= 1.01

    assert relative_residual(system, solution) == pytest.approx(0.01)


def test_residual_of_a_zero_right_hand_side_counts_what_is_there() -> None:
    rows, _ = _token_rows()
    system = DampedSystem(rows, 0.7, torch.zeros(1, 23).double(), torch.zeros(1, 12).double())

    assert relative_residual(system, torch.zeros(1, 12).double()) == 0
    assert relative_residual(system, torch.ones(1, 12).double()) > 0.1
