"""Triton kernels for what plain torch would do in many passes over memory; CUDA only, imported on first use there.

Each has a plain torch equivalent that runs on a CPU and that the tests compare it with: `pairs.pair_features`,
`segments.gradients_by_loop`, `segments.scores_by_loop`, `TokenRows.square_norms`. None waits for the device, and none
adds in an order that changes from run to run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from trainer_ext.influence.layout import OUTER_TOKENS, SCORE_TOKENS
from trainer_ext.influence.pairs import GRANULE, padded_pairs, pair_index

_BLOCK = 64


@triton.jit
def _exp2(exponent):
    """2^exponent in float32, exact; zero below 2^-126."""
    clamped = tl.minimum(tl.maximum(exponent, -127), 127)
    return ((clamped + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _pair_features(
    rows, exponent, out, tokens, shift, k: tl.constexpr, count: tl.constexpr,
    padded: tl.constexpr, LOW: tl.constexpr, TOKENS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    valid = token < tokens
    lane = tl.arange(0, WIDTH)
    target = out + token.to(tl.int64)[:, None] * padded
    if block * 4 >= k:  # one program more than there are blocks clears the padding
        for start in range(count, padded, WIDTH):
            mask = valid[:, None] & (start + lane < padded)[None, :]
            tl.store(target + start + lane[None, :], tl.zeros((TOKENS, WIDTH), tl.float16), mask=mask)
    else:
        weight = _exp2(tl.load(exponent + token, mask=valid, other=0).to(tl.int32) + shift)
        source = rows + token.to(tl.int64) * k
        length = k - 4 * block
        begin = 4 * block * k - 8 * block * (block - 1)
        for start in range(0, k, WIDTH):
            if start < length:
                inside = start + lane < length
                mask = valid[:, None] & inside[None, :]
                second = tl.load(source[:, None] + (4 * block + start + lane)[None, :], mask=mask, other=0.0)
                second = second.to(tl.float32) * weight[:, None]
                for i in tl.static_range(4):
                    first = tl.load(source + 4 * block + i, mask=valid & (4 * block + i < k), other=0.0)
                    exact = second * first.to(tl.float32)[:, None]
                    product = exact.to(tl.float16)
                    if LOW:
                        product = (exact - product.to(tl.float32)).to(tl.float16)
                    place = begin + i * length + start + lane
                    tl.store(target + place[None, :], product, mask=mask & (4 * block + i < k))


def pair_features(rows: Tensor, exponent: Tensor, shift: int, out: Tensor, *, low: bool = False) -> Tensor:
    """2^(exponent_t + shift) x_tb x_td for every pair in float16, zeros in the padding (`pairs.pair_features`).

    Args:
        rows: x, float16 [T, k] contiguous.
        exponent: int [T].
        out: float16 [T, padded] contiguous.
        low: what rounding to float16 left over instead.
    """
    tokens, k = rows.shape
    # measured on an H200: 2.9 to 3.1 TB/s at k = 140 and 280, where a plain fill of the same memory writes 3.2
    block_tokens, width = (8, 128) if k >= 64 else (16, max(16, triton.next_power_of_2(k)))
    grid = (triton.cdiv(k, GRANULE) + 1, triton.cdiv(tokens, block_tokens))
    count = pair_index(k, rows.device).count
    _pair_features[grid](
        rows, exponent, out, tokens, shift, k, count, padded_pairs(k), low, block_tokens, width, num_warps=8
    )
    return out


@triton.jit
def _square_norms(
    large_rows, small_rows, exponent, out, tokens,
    large: tl.constexpr, small: tl.constexpr, TOKENS: tl.constexpr, LARGE: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    valid = token < tokens
    offset = token.to(tl.int64)[:, None]
    left, right = tl.arange(0, LARGE), tl.arange(0, SMALL)
    l_mask = valid[:, None] & (left < large)[None, :]
    s_mask = valid[:, None] & (right < small)[None, :]
    l_tile = tl.load(large_rows + offset * large + left[None, :], mask=l_mask, other=0.0).to(tl.float32)
    s_tile = tl.load(small_rows + offset * small + right[None, :], mask=s_mask, other=0.0).to(tl.float32)
    square = tl.sum(l_tile * l_tile, axis=1).to(tl.float64) * tl.sum(s_tile * s_tile, axis=1).to(tl.float64)
    power = _exp2(tl.load(exponent + token, mask=valid, other=0).to(tl.int32)).to(tl.float64)
    tl.store(out + token, square * power * power, mask=valid)


def square_norms(large: Tensor, small: Tensor, exponent: Tensor) -> Tensor:
    """4^e_t |l_t|^2 |s_t|^2, float64 [T]; zero where 2^e_t is below 2^-126.

    Args:
        large, small: float16 [T, k_large] and [T, k_small], contiguous.
        exponent: int [T], none above 0.
    """
    tokens, k_large = large.shape
    k_small = small.shape[1]
    out = torch.empty(tokens, dtype=torch.float64, device=large.device)
    widths = [max(16, triton.next_power_of_2(k)) for k in (k_large, k_small)]
    block = max(1, 4096 // widths[0])
    if tokens:
        grid = (triton.cdiv(tokens, block),)
        _square_norms[grid](large, small, exponent, out, tokens, k_large, k_small, block, *widths, num_warps=4)
    return out


@triton.jit
def _power_above(value):
    """The exponent e of a float32 with |value| < 2^e <= 2 |value|, read off its bits."""
    return ((value.to(tl.int32, bitcast=True) >> 23) & 255) - 126


@triton.jit
def _segment_outer(
    large_rows, small_rows, exponent, weights, largest, start, end, out,
    large: tl.constexpr, small: tl.constexpr, WEIGHTED: tl.constexpr, SPAN: tl.constexpr, TOKENS: tl.constexpr,
    LARGE: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    left = tl.program_id(1) * LARGE + tl.arange(0, LARGE)
    right = tl.program_id(2) * SMALL + tl.arange(0, SMALL)
    first, last = tl.load(start + tile), tl.load(end + tile)
    total = tl.zeros((LARGE, SMALL), tl.float32)
    if WEIGHTED:
        common = _power_above(tl.load(largest))
    else:
        common = 0
    for begin in range(0, SPAN, TOKENS):
        token = first + begin + tl.arange(0, TOKENS)
        valid = token < last
        power = tl.load(exponent + token, mask=valid, other=0).to(tl.int32)
        half = power >> 1  # the two halves reach further down than one float16 power could
        offset = token.to(tl.int64)[:, None]
        l_mask = valid[:, None] & (left < large)[None, :]
        s_mask = valid[:, None] & (right < small)[None, :]
        l_tile = tl.load(large_rows + offset * large + left[None, :], mask=l_mask, other=0.0)
        s_tile = tl.load(small_rows + offset * small + right[None, :], mask=s_mask, other=0.0)
        s_tile = (s_tile.to(tl.float32) * _exp2(power - half)[:, None]).to(tl.float16)
        l_exact = l_tile.to(tl.float32) * _exp2(half)[:, None]
        if WEIGHTED:
            weight = tl.load(weights + token, mask=valid, other=0.0) * _exp2(-common)
            l_exact = l_exact * weight[:, None]
        l_high = l_exact.to(tl.float16)
        total = tl.dot(tl.trans(l_high), s_tile, total)
        if WEIGHTED:
            total = tl.dot(tl.trans((l_exact - l_high.to(tl.float32)).to(tl.float16)), s_tile, total)
    mask = (left < large)[:, None] & (right < small)[None, :]
    place = tile.to(tl.int64) * large * small + left[:, None] * small + right[None, :]
    tl.store(out + place, total * _exp2(common), mask=mask)


def segment_outer(
    large: Tensor, small: Tensor, exponent: Tensor, start: Tensor, end: Tensor, weights: Tensor | None = None
) -> Tensor:
    """sum of w_t 2^e_t l_t s_t^T over the tokens of each tile, float32 [tiles, D].

    Args:
        large, small: float16 [T, k_large] and [T, k_small], contiguous.
        exponent: int [T], none above 0.
        start, end: int32 [tiles]; tiles of at most `OUTER_TOKENS` tokens.
        weights: w, float32 [T]; None: ones.
    """
    k_large, k_small = large.shape[1], small.shape[1]
    out = torch.empty(len(start), k_large * k_small, dtype=torch.float32, device=large.device)
    block = min(_BLOCK, max(16, triton.next_power_of_2(k_small)))
    grid = (len(start), triton.cdiv(k_large, _BLOCK), triton.cdiv(k_small, block))
    largest = None if weights is None else torch.linalg.vector_norm(weights, ord=torch.inf).reshape(1)
    if len(start):
        _segment_outer[grid](
            large, small, exponent, weights, largest, start, end, out, k_large, k_small, weights is not None,
            OUTER_TOKENS, _BLOCK, _BLOCK, block, num_warps=4,
        )  # fmt: skip
    return out


@triton.jit
def _segment_scores(
    large_rows, small_rows, exponent, start, end, direction, matrices, largest, out,
    large: tl.constexpr, small: tl.constexpr, TOKENS: tl.constexpr, LARGE: tl.constexpr, SMALL: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    token = tl.load(start + tile) + tl.arange(0, TOKENS)
    valid = token < tl.load(end + tile)
    row = tl.load(direction + tile)
    power = _power_above(tl.load(largest + row))
    scale = _exp2(-power)
    matrix = row.to(tl.int64) * large * small
    offset = token.to(tl.int64)[:, None]
    score = tl.zeros((TOKENS,), tl.float32)
    for l_start in range(0, large, LARGE):
        left = l_start + tl.arange(0, LARGE)
        product = tl.zeros((TOKENS, LARGE), tl.float32)
        for s_start in range(0, small, SMALL):
            right = s_start + tl.arange(0, SMALL)
            s_mask = valid[:, None] & (right < small)[None, :]
            s_tile = tl.load(small_rows + offset * small + right[None, :], mask=s_mask, other=0.0)
            w_mask = (left < large)[None, :] & (right < small)[:, None]
            place = matrix + left[None, :] * small + right[:, None]
            w_tile = tl.load(matrices + place, mask=w_mask, other=0.0) * scale
            high = w_tile.to(tl.float16)
            product = tl.dot(s_tile, high, product)
            product = tl.dot(s_tile, (w_tile - high.to(tl.float32)).to(tl.float16), product)
        l_mask = valid[:, None] & (left < large)[None, :]
        l_tile = tl.load(large_rows + offset * large + left[None, :], mask=l_mask, other=0.0)
        score += tl.sum(product * l_tile.to(tl.float32), axis=1)
    power += tl.load(exponent + token, mask=valid, other=0).to(tl.int32)
    tl.store(out + token, score * _exp2(power), mask=valid)


def segment_scores(
    large: Tensor, small: Tensor, exponent: Tensor, start: Tensor, end: Tensor, direction: Tensor, matrices: Tensor
) -> Tensor:
    """2^e_t l_t^T W s_t with the matrix of the token's tile, float32 [T]; zero for tokens of no tile.

    W is taken as the sum of two float16 numbers under the power of two of its largest entry (`split.py`).

    Args:
        large, small, exponent: as in `segment_outer`.
        start, end, direction: int32 [tiles]; tiles of at most `SCORE_TOKENS` tokens, and the row of W of each.
        matrices: W [n, D] floating point.
    """
    matrices = matrices.float().contiguous()
    largest = torch.linalg.vector_norm(matrices, ord=torch.inf, dim=1)
    out = torch.zeros(len(large), dtype=torch.float32, device=large.device)
    k_large, k_small = large.shape[1], small.shape[1]
    block = min(_BLOCK, max(16, triton.next_power_of_2(k_small)))
    if len(start):
        _segment_scores[(len(start),)](
            large, small, exponent, start, end, direction, matrices, largest, out, k_large, k_small,
            SCORE_TOKENS, _BLOCK, block, num_warps=4,
        )  # fmt: skip
    return out
