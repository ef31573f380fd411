"""Cases of `test_kernels.py`: features, sums of outer products and scores of tiles, against plain torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.materialised import half_token_rows, in_full, normal
from trainer_ext.influence import kernels
from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.layout import OUTER_TOKENS, SCORE_TOKENS
from trainer_ext.influence.pairs import padded_pairs, pair_features
from trainer_ext.influence.storage import half_rows

SIDES = [(1, 1), (7, 3), (70, 12), (20, 18)]
"""Widths about those of a kernel's block of 64, and no multiple of four or sixteen."""


def _int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def _rows(tokens: int, large: int, small: int, exponent: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """l, s, e, and the gradients in full."""
    rows = half_token_rows(tokens, large, small, spread=0.5)
    e = rows.exponent if exponent is None else exponent
    assert e is not None
    return rows.large, rows.small, e, in_full(TokenRows(rows.large, rows.small, rows.owner, e))


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize(("k", "tokens"), [(1, 21), (3, 21), (4, 21), (7, 21), (12, 21), (64, 21), (70, 21), (70, 1)])
@pytest.mark.parametrize("low", [False, True])
def test_features_are_the_plain_ones_to_the_bit(k: int, tokens: int, low: bool) -> None:
    x, e = half_rows(normal(tokens, k))[0], -(torch.arange(tokens, dtype=torch.int32) * 3)
    exact = pair_features(x.float(), torch.exp2(e + 13.0), torch.empty(tokens, padded_pairs(k)))
    unwritten = torch.full(exact.shape, torch.nan, dtype=torch.float16)

    features = kernels.pair_features(x, e, 13, unwritten, low=low)

    expected = exact.half()
    assert torch.equal(features, (exact - expected.float()).half() if low else expected)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32])
def test_features_of_a_token_without_gradient_are_zero_whatever_its_power(dtype: torch.dtype) -> None:
    lowest = -128 if dtype == torch.int8 else -640
    x, e = torch.ones(2, 5, dtype=torch.float16), torch.tensor([lowest, 0], dtype=dtype)

    features = kernels.pair_features(x, e, 13, torch.empty(2, padded_pairs(5), dtype=torch.float16))

    assert not features[0].any()
    assert float(features[1].max()) == 2.0**13


@pytest.mark.parametrize(
    ("sides", "size"), [(sides, None) for sides in SIDES] + [(SIDES[1], size) for size in (0.0, 1e-15, 1e3, 1e15)]
)
def test_outer_products_add_up_within_each_tile(sides: tuple[int, int], size: float | None) -> None:
    large, small = sides
    large_rows, small_rows, e, full = _rows(150, large, small)
    start, end = _int32(3, 4, 67, 131), _int32(4, 67, 131, 140)  # one token, a block less one, a block, and a rest
    weights = None if size is None else size * normal(150, seed=5).float()

    sums = kernels.segment_outer(large_rows, small_rows, e, start, end, weights)

    weighted = full if weights is None else weights.double()[:, None] * full
    expected = torch.stack([weighted[i:j].sum(dim=0) for i, j in zip(start, end, strict=True)])
    assert (sums.shape, sums.dtype) == (expected.shape, torch.float32)
    if size == 0:
        assert not sums.any()
    else:
        assert max(_error(one, wanted) for one, wanted in zip(sums, expected, strict=True)) < 1e-5


def test_a_tile_may_be_as_long_as_stated() -> None:
    large_rows, small_rows, e, full = _rows(OUTER_TOKENS + 2, 5, 3)

    sums = kernels.segment_outer(large_rows, small_rows, e, _int32(1), _int32(OUTER_TOKENS + 1))

    assert _error(sums[0], full[1:-1].sum(dim=0)) < 1e-5


@pytest.mark.parametrize(("power", "bound"), [(-7, 1e-3), (-20, 1e-3), (-24, 1e-2)])
def test_a_tile_of_small_tokens_alone_keeps_digits(power: int, bound: float) -> None:
    large_rows, small_rows, e, full = _rows(50, 7, 3, torch.full((50,), power, dtype=torch.int32))

    sums = kernels.segment_outer(large_rows, small_rows, e, _int32(0), _int32(50))

    assert _error(sums[0], full.sum(dim=0)) < bound


def test_a_token_without_gradient_adds_nothing() -> None:
    large_rows, small_rows, e, full = _rows(8, 7, 3, _int32(0, -600, 0, -640, 0, 0, -700, 0))

    sums = kernels.segment_outer(large_rows, small_rows, e, _int32(0), _int32(8))

    assert _error(sums[0], full[e == 0].sum(dim=0)) < 1e-5


@pytest.mark.parametrize(("large", "small"), SIDES)
@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_scores_are_made_with_the_direction_of_each_tile(large: int, small: int, size: float) -> None:
    large_rows, small_rows, e, full = _rows(300, large, small)
    start, end, direction = _int32(2, 3, 131, 140), _int32(3, 131, 140, 268), _int32(2, 0, 0, 1)
    matrices = size * normal(3, large * small) * torch.tensor([[1.0], [1e3], [1e-3]])

    scores = kernels.segment_scores(large_rows, small_rows, e, start, end, direction, matrices)

    expected = torch.zeros(300, dtype=torch.float64)
    for i, j, row in zip(start, end, direction, strict=True):
        expected[i:j] = full[i:j] @ matrices[row]
    assert scores.dtype == torch.float32
    assert not scores[:2].any()
    assert not scores[268:].any()
    for i, j in zip(start, end, strict=True):
        # relative to the lengths: a bilinear form may cancel
        lengths = full[i:j].norm(dim=1) * matrices.norm(dim=1).max()
        error = (scores[i:j].double() - expected[i:j]).norm()
        assert float(error) < 1e-5 * float(expected[i:j].norm()) + 1e-6 * float(lengths.norm()) * (j - i == 1)


@pytest.mark.parametrize("power", [-30, -90])
def test_scores_of_small_tokens_keep_their_digits(power: int) -> None:
    large_rows, small_rows, e, full = _rows(40, 7, 3, torch.full((40,), power, dtype=torch.int32))
    matrix = normal(1, 21)

    scores = kernels.segment_scores(large_rows, small_rows, e, _int32(0), _int32(40), _int32(0), matrix)

    assert _error(scores * 2.0**60, full @ matrix[0] * 2.0**60) < 1e-5


def test_a_direction_of_zeros_scores_zero() -> None:
    large_rows, small_rows, e, _ = _rows(SCORE_TOKENS, 7, 3)

    scores = kernels.segment_scores(
        large_rows, small_rows, e, _int32(0), _int32(SCORE_TOKENS), _int32(0), torch.zeros(1, 21)
    )

    assert torch.equal(scores, torch.zeros(SCORE_TOKENS))


def test_without_tiles_nothing_is_made() -> None:
    large_rows, small_rows, e, _ = _rows(5, 7, 3)
    none = _int32()

    assert kernels.segment_outer(large_rows, small_rows, e, none, none).shape == (0, 21)
    assert not kernels.segment_scores(large_rows, small_rows, e, none, none, none, torch.ones(1, 21)).any()
