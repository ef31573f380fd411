"""Sums over tokens of products of features: exact in float64, within the rounding of features in float16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.materialised import half_token_rows, in_full, token_rows
from trainer_ext.influence import gram
from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.gram import compact_gram, gram_into
from trainer_ext.influence.pairs import expanded, padded_pairs, pair_index


def _gram(rows: TokenRows, norms: Tensor | None = None) -> Tensor:
    """H [D, D] in the type of the sums."""
    return expanded(compact_gram(rows.large, rows.small, rows.exponent, norms), *rows.sides)


def _error(rows: TokenRows, norms: Tensor | None = None) -> float:
    """|H - X^T X| / |X^T X|, with X as the rounded rows are."""
    full = in_full(rows)
    exact = full.T @ full
    return float((_gram(rows, norms).double() - exact).norm() / exact.norm())


@pytest.mark.parametrize(("large", "small"), [(1, 1), (7, 2), (9, 8)])
@pytest.mark.parametrize("chunk", [1, 7, 300, 2**18])
def test_float64_rows_give_the_gram_matrix_whatever_the_chunk(
    large: int, small: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram, "FEATURE_TOKENS", chunk)
    rows = token_rows(700, large, small)

    full = in_full(rows)
    torch.testing.assert_close(_gram(rows), full.T @ full, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("chunk", [1, 100, 300])
def test_float16_rows_give_the_same_whatever_the_chunk(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = half_token_rows(700, 5, 3)
    norms = rows.square_norms()
    whole = _gram(rows, norms)

    monkeypatch.setattr(gram, "FEATURE_TOKENS", chunk)

    torch.testing.assert_close(_gram(rows, norms), whole, rtol=1e-5, atol=1e-6 * float(whole.abs().max()))


def test_features_are_held_within_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "FEATURE_BYTES", 8.0 * padded_pairs(6) * 100)
    rows = token_rows(700, 6, 3)

    full = in_full(rows)
    torch.testing.assert_close(_gram(rows), full.T @ full, rtol=1e-12, atol=1e-11)


def test_no_tokens_make_a_zero_matrix() -> None:
    rows = half_token_rows(4, 5, 3)
    assert rows.exponent is not None
    none = TokenRows(rows.large[:0], rows.small[:0], rows.owner[:0], rows.exponent[:0])

    assert not _gram(none, none.square_norms()).any()
    assert not compact_gram(none.large.double(), none.small.double(), None).any()


@pytest.mark.parametrize("half", [False, True])
def test_what_stood_there_before_is_overwritten_and_the_padding_is_zero(half: bool) -> None:
    rows = half_token_rows(50, 5, 3) if half else token_rows(50, 5, 3)
    dtype = torch.float32 if half else torch.float64
    total = torch.full((padded_pairs(5), padded_pairs(3)), torch.nan, dtype=dtype)

    assert gram_into(total, rows.large, rows.small, rows.exponent) is total

    columns = pair_index(5, torch.device("cpu")).count, pair_index(3, torch.device("cpu")).count
    assert torch.equal(total, compact_gram(rows.large, rows.small, rows.exponent))
    assert not total[columns[0] :].any()
    assert not total[:, columns[1] :].any()


def test_float16_rows_err_by_the_rounding_of_two_features() -> None:
    rows = half_token_rows(2000, 6, 5, spread=0.5)
    full = in_full(rows)

    error = (_gram(rows).double() - full.T @ full).abs()

    # half an ulp a feature, some for the features that are no longer normal and for the float32 sum
    assert (error <= 1.1 * 2.0**-10 * (full.abs().T @ full.abs())).all()
    assert float(error.max()) > 0


def test_gradients_over_forty_powers_of_two_add_up() -> None:
    rows = half_token_rows(1000, 6, 5, spread=0.3)
    rows = TokenRows(rows.large, rows.small, rows.owner, -(torch.arange(1000, dtype=torch.int32) % 41))

    assert _error(rows) < 2.0**-11


@pytest.mark.parametrize("exponent", [0, -10, -20, -27])
def test_a_token_of_a_power_of_two_down_to_27_is_seen_beside_the_largest(exponent: int) -> None:
    rows = torch.tensor([[1.5, 0], [0, 1.25]], dtype=torch.float16)

    matrix = _gram(TokenRows(rows, rows, torch.zeros(2), torch.tensor([0, exponent], dtype=torch.int32)))

    assert float(matrix[3, 3]) == pytest.approx(1.25**4 * 4.0**exponent, rel=2.0**-10)
    assert float(matrix[0, 0]) == pytest.approx(1.5**4, rel=2.0**-10)


def test_a_token_of_power_minus_40_spoils_nothing() -> None:
    rows = torch.tensor([[1.5, 0], [0, 1.25]], dtype=torch.float16)

    matrix = _gram(TokenRows(rows, rows, torch.zeros(2), torch.tensor([0, -40], dtype=torch.int32)))

    assert 0 <= float(matrix[3, 3]) < 2.0**-70


@pytest.mark.parametrize("seed", range(3))
def test_the_largest_tokens_are_summed_more_precisely(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "SMALL_GRAM", 0)
    rows = half_token_rows(8192, 8, 5, spread=1.25, seed=10 * seed)

    # 15 to 22 times were measured, 1.4 times with one of the two corrections alone
    assert _error(rows, rows.square_norms()) < _error(rows) / 5


@pytest.mark.parametrize("chunk", [1000, 2**18])
def test_a_small_matrix_has_the_rounding_of_every_token_taken_back(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "FEATURE_TOKENS", chunk)
    rows = half_token_rows(2000, 8, 5)  # of like size: no few of them hold the error
    norms = rows.square_norms()

    error = _error(rows, norms)

    monkeypatch.setattr(gram, "SMALL_GRAM", 0)
    assert error < _error(rows, norms) / 10, error


def test_norms_may_come_in_any_unit() -> None:
    rows = half_token_rows(500, 4, 3)

    assert torch.equal(_gram(rows, rows.square_norms()), _gram(rows, 1e-6 * rows.square_norms()))
