"""Products with a Hessian that is never formed are products with X^T X + lambda I, however its rows are kept."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.materialised import half_token_rows, in_full, normal, token_rows
from trainer_ext.influence import curvature
from trainer_ext.influence.curvature import DenseRows, GradientRows, TokenRows, damping

TOKENS, LARGE, SMALL = 23, 4, 3
DIM = LARGE * SMALL
DAMPING = torch.tensor(0.7, dtype=torch.float64)
CHUNKS = (1, 5 * 3 * SMALL * 8, 2**28)
"""Bytes of one token, of some, and of all of them."""


def _exact() -> TokenRows:
    return token_rows(TOKENS, LARGE, SMALL)


def _powers() -> TokenRows:
    """The same with an exponent for each token, from 0 to -10."""
    rows = _exact()
    exponent = -(torch.arange(TOKENS, dtype=torch.int32) % 11)
    return TokenRows(rows.large, rows.small, rows.owner, exponent)


def _halves() -> TokenRows:
    rows = half_token_rows(TOKENS, LARGE, SMALL)
    return TokenRows(rows.large, rows.small, torch.arange(TOKENS) % 3, rows.exponent)


def _dense() -> DenseRows:
    return DenseRows(normal(TOKENS, DIM), (LARGE, SMALL))


ROWS = {"exact": _exact, "powers": _powers, "halves": _halves, "dense": _dense}


@pytest.fixture(params=ROWS)
def rows(request: pytest.FixtureRequest) -> GradientRows:
    made: GradientRows = ROWS[request.param]()
    return made


def _full(rows: GradientRows) -> Tensor:
    return in_full(rows) if isinstance(rows, TokenRows) else rows.rows  # type: ignore[attr-defined]


def test_sizes_are_those_of_the_rows(rows: GradientRows) -> None:
    assert (rows.count, rows.sides, len(rows.owner)) == (TOKENS, (LARGE, SMALL), TOKENS)


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_products_equal_those_of_rows_in_full(
    rows: GradientRows, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature, "CHUNK_BYTES", chunk_bytes)
    full, directions, coefficients = _full(rows), normal(3, DIM), normal(3, TOKENS)

    torch.testing.assert_close(rows.products(directions), directions @ full.T)
    torch.testing.assert_close(rows.combine(coefficients), coefficients @ full)
    torch.testing.assert_close(rows.gram(), full @ full.T)
    torch.testing.assert_close(rows.apply(directions, DAMPING), directions @ (full.T @ full) + 0.7 * directions)


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_each_direction_may_leave_a_response_out(
    rows: GradientRows, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature, "CHUNK_BYTES", chunk_bytes)
    full, directions, without = _full(rows), normal(4, DIM), torch.tensor([2, 0, 1, 0])

    applied = rows.apply(directions, DAMPING, without)

    for direction, response, got in zip(directions, without, applied, strict=True):
        kept = full[rows.owner != response]
        assert len(kept) < TOKENS
        torch.testing.assert_close(got, direction @ (kept.T @ kept) + 0.7 * direction)


def test_norms_are_those_of_rows_in_full(rows: GradientRows) -> None:
    # float16 rows are measured in float32
    rtol = 1e-6 if isinstance(rows, TokenRows) and rows.large.dtype == torch.float16 else 1e-12

    torch.testing.assert_close(rows.square_norms(), _full(rows).square().sum(dim=1), rtol=rtol, atol=0)


def test_norms_reach_further_down_than_float32() -> None:
    rows = TokenRows(
        torch.ones(2, 2).half(), torch.ones(2, 2).half(), torch.zeros(2), torch.tensor([0, -120], dtype=torch.int32)
    )

    torch.testing.assert_close(rows.square_norms(), torch.tensor([4, 4 * 2.0**-240], dtype=torch.float64))


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_kronecker_factors_are_partial_traces_of_the_hessian(
    rows: GradientRows, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curvature, "CHUNK_BYTES", chunk_bytes)
    full = _full(rows)
    hessian = (full.T @ full).reshape(LARGE, SMALL, LARGE, SMALL)

    a, b = rows.kronecker()

    torch.testing.assert_close(a, torch.einsum("bada->bd", hessian))
    torch.testing.assert_close(b, torch.einsum("babc->ac", hessian))
    torch.testing.assert_close(a.trace(), b.trace())


@pytest.mark.parametrize("rows", ["exact", "powers", "halves"], indirect=True)
def test_factors_of_some_tokens_carry_their_powers(rows: TokenRows) -> None:
    some = slice(5, 9)

    large, small = rows.factors(some)

    assert large.dtype == small.dtype == torch.float64
    torch.testing.assert_close(torch.einsum("tb,ta->tba", large, small).flatten(1), in_full(rows)[some])


def test_products_are_made_in_the_type_of_work() -> None:
    rows, directions = token_rows(TOKENS, LARGE, SMALL, work=torch.float32), normal(3, DIM)

    applied = rows.apply(directions, DAMPING)

    exact = token_rows(TOKENS, LARGE, SMALL).apply(directions, DAMPING)
    error = float((applied - exact).norm() / exact.norm())
    assert applied.dtype == torch.float64
    assert 1e-9 < error < 1e-6


def test_a_response_s_row_is_its_own() -> None:
    assert _dense().owner.tolist() == list(range(TOKENS))


def test_default_damping_is_a_tenth_of_the_mean_diagonal_entry(rows: GradientRows) -> None:
    full = _full(rows)
    trace = rows.square_norms().sum()
    expected = 0.1 * (full.T @ full).diagonal().mean()

    for given in (-1.0, 0.0):
        torch.testing.assert_close(damping(trace, DIM, given), expected, rtol=1e-6, atol=0)


def test_a_given_damping_is_kept() -> None:
    trace = torch.tensor([3.0, 0.0], dtype=torch.float64)

    assert damping(trace, DIM, 2.5).tolist() == [2.5, 2.5]


def test_rows_that_are_all_zero_are_damped_all_the_same() -> None:
    assert damping(torch.tensor([0.0, 120.0], dtype=torch.float64), DIM, -1.0).tolist() == [1.0, 1.0]
