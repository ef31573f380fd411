"""The blocked factorisation: right to the digits that float16 holds, for sizes that are no multiple of its block, and
honest about matrices that have no factor. On a CPU; `test_cholesky_kernels.py` has the kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.materialised import double_symmetric, normal
from trainer_ext.influence.cholesky import BLOCK, RESIDUAL_COLUMNS, BlockedCholesky, compact_residual
from trainer_ext.influence.pairs import padded_pairs, pair_index

SIDES = [(1, 1), (5, 3), (16, 8), (13, 11), (20, 13), (16, 16)]
"""D = 1, 15, 128, 143, 260, 256."""


def _compact(matrix: Tensor, large: int, small: int) -> Tensor:
    """Distinct entries of a double-symmetric matrix, float32 [M, N]."""
    cpu = torch.device("cpu")
    rows, columns = pair_index(large, cpu).place, pair_index(small, cpu).place
    out = torch.zeros(padded_pairs(large), padded_pairs(small))
    blocks = matrix.unflatten(0, (large, small)).unflatten(2, (large, small)).permute(0, 2, 1, 3)
    out[rows[:, :, None, None], columns[None, None]] = blocks.float()
    for b, d in np.ndindex(large, large):  # inside a block of four a pair stands twice, once as (d, b)
        if b // 4 == d // 4:
            out[rows[d, b]] = out[rows[b, d]]
    return out


def _systems(large: int, small: int, groups: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct entries [G, M, N], dampings [G], and H + lambda I, float64 [G, D, D]; each group with its own scale."""
    matrices = torch.stack([10.0 ** (3 * g - 3) * double_symmetric(large, small, seed=g) for g in range(groups)])
    damping = 0.1 * matrices.diagonal(dim1=1, dim2=2).mean(dim=1)
    compact = torch.stack([_compact(matrix, large, small) for matrix in matrices])
    return compact, damping.float(), matrices + damping[:, None, None] * torch.eye(large * small)


def _lower_triangle(cholesky: BlockedCholesky, group: int) -> Tensor:
    """L of the scaled matrix, float64 [D, D], put together from its blocks."""
    lower = cholesky.lower[group].double().tril()
    for block, inverse in enumerate(cholesky.inverses[group].double()):
        at = slice(block * BLOCK, (block + 1) * BLOCK)
        lower[at, at] = torch.linalg.inv(inverse)
    dim = cholesky.scale.shape[1]
    return lower[:dim, :dim]


def _relative(error: Tensor, of: Tensor) -> float:
    """Worst group's ratio of norms."""
    return float((error.flatten(1).norm(dim=1) / of.flatten(1).norm(dim=1)).max())


@pytest.mark.parametrize(("large", "small"), SIDES)
def test_the_factor_is_that_of_the_matrix_scaled_to_a_diagonal_of_ones(large: int, small: int) -> None:
    compact, damping, matrices = _systems(large, small)

    cholesky = BlockedCholesky.of(compact, damping, large, small)

    assert not cholesky.failed.any()
    for group, matrix in enumerate(matrices.numpy()):
        scale = 1 / np.sqrt(np.diag(matrix))
        np.testing.assert_allclose(cholesky.scale[group].numpy(), scale, rtol=1e-6)
        expected = np.linalg.cholesky(scale[:, None] * matrix * scale[None, :])
        np.testing.assert_allclose(_lower_triangle(cholesky, group).numpy(), expected, atol=2e-3)


@pytest.mark.parametrize(("large", "small"), SIDES)
@pytest.mark.parametrize("right_hand_sides", [1, 6])
def test_solutions_are_right_to_three_digits_for_all_systems_at_once(
    large: int, small: int, right_hand_sides: int
) -> None:
    compact, damping, matrices = _systems(large, small)
    wanted = normal(3, right_hand_sides, large * small)

    solved = BlockedCholesky.of(compact, damping, large, small).solve(wanted)

    expected = np.stack([np.linalg.solve(m, d.T).T for m, d in zip(matrices.numpy(), wanted.numpy(), strict=True)])
    assert solved.shape == wanted.shape
    assert _relative(solved - torch.from_numpy(expected), torch.from_numpy(expected)) < 1e-3


def test_one_correction_by_the_residual_takes_the_rounding_of_the_factor_back() -> None:
    compact, damping, matrices = _systems(20, 13)
    wanted, cholesky = normal(3, 4, 260), BlockedCholesky.of(compact, damping, 20, 13)
    exact = torch.linalg.solve(matrices, wanted.mT).mT

    first = cholesky.solve(wanted).double()
    second = first + cholesky.solve(compact_residual(first, wanted, compact, damping, 20, 13))

    assert _relative(second - exact, exact) < min(1e-6, _relative(first - exact, exact) / 50)


def test_a_system_is_solved_alike_in_any_company() -> None:
    compact, damping, _ = _systems(13, 11)
    wanted = normal(3, 2, 143)

    together = BlockedCholesky.of(compact, damping, 13, 11).solve(wanted)

    for group in range(3):
        at = slice(group, group + 1)
        alone = BlockedCholesky.of(compact[at], damping[at], 13, 11).solve(wanted[at])
        torch.testing.assert_close(together[at], alone, rtol=1e-4, atol=1e-6 * float(alone.abs().max()))


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_right_hand_sides_of_any_size_are_solved_alike(size: float) -> None:
    compact, damping, _ = _systems(13, 11)
    cholesky, wanted = BlockedCholesky.of(compact, damping, 13, 11), normal(3, 2, 143)

    solved = cholesky.solve(size * wanted)

    torch.testing.assert_close(solved, size * cholesky.solve(wanted), rtol=1e-3, atol=1e-6 * size)


def test_solving_leaves_its_right_hand_sides_alone() -> None:
    compact, damping, _ = _systems(5, 3)
    wanted = normal(3, 2, 15)
    before = wanted.clone()

    BlockedCholesky.of(compact, damping, 5, 3).solve(wanted)

    assert torch.equal(wanted, before)


@pytest.mark.parametrize("place", ["first block", "last block"])
def test_a_matrix_that_is_not_positive_definite_fails_alone(place: str) -> None:
    large, small = 20, 13
    matrices = torch.eye(260, dtype=torch.float64).repeat(3, 1, 1)
    b, d = (0, 1) if place == "first block" else (18, 19)
    at = [slice(small * side, small * (side + 1)) for side in (b, d)]
    # a diagonal of ones with twos beside it: eigenvalues 3 and -1
    matrices[1][at[0], at[1]] = matrices[1][at[1], at[0]] = 2 * torch.eye(small, dtype=torch.float64)
    assert float(torch.linalg.eigvalsh(matrices[1]).min()) == pytest.approx(-1)

    compact = torch.stack([_compact(matrix, large, small) for matrix in matrices])
    cholesky = BlockedCholesky.of(compact, torch.full((3,), 0.5), large, small)

    assert cholesky.failed.tolist() == [False, True, False]
    wanted = normal(3, 2, 260)
    solved = cholesky.solve(wanted).double()
    assert not solved[1].isfinite().any()
    torch.testing.assert_close(solved[[0, 2]], wanted[[0, 2]] / 1.5, rtol=1e-3, atol=1e-6)


def test_enough_damping_makes_any_matrix_positive_definite() -> None:
    compact = torch.zeros(1, padded_pairs(13), padded_pairs(11))

    cholesky = BlockedCholesky.of(compact, torch.full((1,), 4.0), 13, 11)

    assert not cholesky.failed.any()
    torch.testing.assert_close(cholesky.solve(torch.ones(1, 2, 143)), torch.full((1, 2, 143), 0.25))


@pytest.mark.parametrize(("large", "small"), [(5, 3), (20, 13), (30, 18)])
def test_the_residual_from_distinct_entries_is_the_dense_one(large: int, small: int) -> None:
    compact, damping, matrices = _systems(large, small)
    solution, wanted = normal(3, 2, large * small), normal(3, 2, large * small, seed=1)

    residual = compact_residual(solution, wanted, compact, damping, large, small)

    expected = wanted - solution @ matrices
    assert residual.dtype == torch.float64
    assert _relative(residual - expected, expected) < 1e-6


def test_a_residual_is_made_in_more_than_one_piece() -> None:
    assert RESIDUAL_COLUMNS < 30 * 18
