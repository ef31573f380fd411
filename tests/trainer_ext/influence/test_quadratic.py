"""Squared lengths of tokens in the metric of the inverse Hessian, by both ways, are g^T H^-1 g."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.materialised import half_token_rows, in_full, token_rows
from trainer_ext.influence import quadratic
from trainer_ext.influence.curvature import DenseRows, TokenRows
from trainer_ext.influence.factorisation import DualFactor
from trainer_ext.influence.quadratic import through_gram, through_inverse

DAMPING = torch.tensor(0.7, dtype=torch.float64)


def _inverse(full: Tensor) -> Tensor:
    return torch.linalg.inv(full.T @ full + DAMPING * torch.eye(full.shape[1], dtype=torch.float64))


def _lengths(tokens: Tensor, inverse: Tensor) -> Tensor:
    return torch.einsum("ti,ij,tj->t", tokens, inverse, tokens)


def _powers(rows: TokenRows) -> TokenRows:
    return TokenRows(rows.large, rows.small, rows.owner, -(torch.arange(rows.count, dtype=torch.int32) % 7))


@pytest.mark.parametrize("powers", [False, True])
@pytest.mark.parametrize(("large", "small"), [(1, 1), (4, 3), (9, 6)])
@pytest.mark.parametrize("chunk_bytes", [1, 64 * 8 * 5, 2**29])
def test_the_inverse_gives_the_lengths_whatever_the_chunk(
    large: int, small: int, powers: bool, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quadratic, "FEATURE_BYTES", chunk_bytes)
    rows = token_rows(13, large, small)
    rows = _powers(rows) if powers else rows
    full = in_full(rows)

    squares = through_inverse(rows, _inverse(full))

    torch.testing.assert_close(squares, _lengths(full, _inverse(full)))


def test_an_inverse_in_float32_gives_float64_lengths_to_its_digits() -> None:
    rows = half_token_rows(40, 5, 4, spread=0.5)
    full = in_full(rows)
    inverse = _inverse(full)

    squares = through_inverse(rows, inverse.float())

    assert squares.dtype == torch.float64
    expected = _lengths(full, inverse)
    assert 0 < float(((squares - expected) / expected).abs().max()) < 1e-3


@pytest.mark.parametrize("powers", [False, True])
@pytest.mark.parametrize("tokens", [5, 40])
def test_the_dual_of_the_tokens_gives_their_lengths(tokens: int, powers: bool) -> None:
    rows = token_rows(tokens, 4, 3)
    rows = _powers(rows) if powers else rows
    full = in_full(rows)

    squares = through_gram(rows, DualFactor.of(rows, DAMPING))

    torch.testing.assert_close(squares, _lengths(full, _inverse(full)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("powers", [False, True])
def test_the_dual_of_the_responses_gives_the_lengths_of_tokens(powers: bool) -> None:
    rows = token_rows(40, 4, 3, responses=5)
    rows = _powers(rows) if powers else rows
    full = in_full(rows)
    sums = torch.stack([full[rows.owner == response].sum(dim=0) for response in range(5)])

    squares = through_gram(rows, DualFactor.of(DenseRows(sums, (4, 3)), DAMPING))

    torch.testing.assert_close(squares, _lengths(full, _inverse(sums)), rtol=1e-9, atol=1e-12)


def test_no_token_has_no_length() -> None:
    rows = token_rows(0, 4, 3)

    squares = through_inverse(rows, torch.eye(12, dtype=torch.float64))

    assert (squares.shape, squares.dtype) == ((0,), torch.float64)


def test_tokens_without_a_gradient_have_no_length() -> None:
    rows = token_rows(6, 4, 3)
    rows.large[2] = 0
    full = in_full(rows)

    assert through_inverse(rows, _inverse(full))[2] == 0
    assert through_gram(rows, DualFactor.of(rows, DAMPING))[2] == pytest.approx(0, abs=1e-15)
