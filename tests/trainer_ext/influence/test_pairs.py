"""Features stand where the formula puts them, and lose nothing of the matrix that they are the distinct entries of."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainer_ext.influence.materialised import double_symmetric, in_full, normal, token_rows
from trainer_ext.influence.pairs import (
    ALIGNMENT,
    GRANULE,
    compact_diagonal,
    expanded,
    padded_pairs,
    pair_features,
    pair_index,
    symmetrised,
)

CPU = torch.device("cpu")
WIDTHS = st.integers(1, 12)


def _formula(b: int, d: int, k: int) -> int:
    """The place of (b, d), b // 4 <= d // 4, as the module states it."""
    block = b // 4
    return 4 * block * k - 8 * block * (block - 1) + (b - 4 * block) * (k - 4 * block) + (d - 4 * block)


def _features(rows: Tensor, weight: Tensor | None = None) -> Tensor:
    unwritten = torch.full((len(rows), padded_pairs(rows.shape[1])), torch.nan, dtype=rows.dtype)
    return pair_features(rows, weight, unwritten)


def _compact(tokens: int, large: int, small: int, seed: int) -> tuple[Tensor, Tensor]:
    """C of random rows, and the Gram matrix itself."""
    rows = token_rows(tokens, large, small, seed=seed)
    full = in_full(rows)
    return _features(rows.large).T @ _features(rows.small), full.T @ full


@settings(deadline=None)
@given(st.integers(1, 70))
def test_pairs_stand_in_the_order_of_the_formula(k: int) -> None:
    index = pair_index(k, CPU)
    enumerated = [(b, d) for b in range(k) for d in range(b // GRANULE * GRANULE, k)]

    assert list(zip(index.first.tolist(), index.second.tolist(), strict=True)) == enumerated
    assert [_formula(b, d, k) for b, d in enumerated] == list(range(len(enumerated)))
    for place, (b, d) in enumerate(enumerated):
        assert index.place[b, d] == place
        assert d // GRANULE == b // GRANULE or index.place[d, b] == place


@settings(deadline=None)
@given(st.integers(1, 300))
def test_widths_are_counted_without_an_index(k: int) -> None:
    index = pair_index(k, CPU)

    assert index.count == len(index.first)
    assert padded_pairs(k) == index.padded
    assert padded_pairs(k) % ALIGNMENT == 0
    assert 0 <= padded_pairs(k) - index.count < ALIGNMENT


@pytest.mark.parametrize(("k", "surplus"), [(280, 0.011), (48, 0.062)])
def test_pairs_that_stand_twice_are_few(k: int, surplus: float) -> None:
    distinct = k * (k + 1) // 2

    assert pair_index(k, CPU).count <= (1 + surplus) * distinct


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [1, 4, 7, 12])
def test_features_are_weighted_products_and_the_padding_is_zero(k: int, weighted: bool) -> None:
    rows, index = normal(5, k), pair_index(k, CPU)
    weight = normal(5, seed=1) if weighted else None

    features = _features(rows, weight)

    expected = rows[:, index.first] * rows[:, index.second] * (1 if weight is None else weight[:, None])
    torch.testing.assert_close(features[:, : index.count], expected)
    assert (features[:, index.count :] == 0).all()


@settings(deadline=None)
@given(st.integers(0, 20), WIDTHS, WIDTHS, st.integers(0, 99))
def test_a_gram_matrix_is_restored_from_its_distinct_entries(tokens: int, large: int, small: int, seed: int) -> None:
    compact, gram = _compact(tokens, large, small, seed)

    torch.testing.assert_close(expanded(compact, large, small), gram)
    torch.testing.assert_close(compact_diagonal(compact, large, small), gram.diagonal())


def test_diagonals_of_many_matrices_come_at_once() -> None:
    several = [_compact(9, 5, 3, seed) for seed in range(3)]

    diagonals = compact_diagonal(torch.stack([compact for compact, _ in several]), 5, 3)

    torch.testing.assert_close(diagonals, torch.stack([gram.diagonal() for _, gram in several]))


@settings(deadline=None)
@given(WIDTHS, WIDTHS, st.integers(0, 99))
def test_a_quadratic_form_becomes_one_product_of_features(large: int, small: int, seed: int) -> None:
    rows = token_rows(6, large, small, seed=seed)
    square = normal(large * small, large * small, seed=seed + 50)
    matrix = square + square.T  # symmetric, without the second symmetry of a Gram matrix

    weights = symmetrised(matrix, large, small)

    form = ((_features(rows.large) @ weights) * _features(rows.small)).sum(dim=1)
    torch.testing.assert_close(form, torch.einsum("ti,ij,tj->t", in_full(rows), matrix, in_full(rows)))


def test_making_the_weights_of_a_form_leaves_its_matrix_alone() -> None:
    matrix = double_symmetric(5, 6)
    before = matrix.clone()

    symmetrised(matrix, 5, 6)

    assert torch.equal(matrix, before)
