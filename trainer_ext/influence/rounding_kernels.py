"""Triton kernel of `rounding.py`: largest magnitude, power of two and float16 of a row in one launch. CUDA only, imported on
first use there; `rounding.py` holds the plain equivalent, which it agrees with to the bit in rows that are finite.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 4096
"""Numbers that a program holds."""


@triton.jit
def _power(exponent):
    """2^exponent in float32 for exponents from -126 to 127."""
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _round(
    rows, input_exponent, halves, exponent, tokens, stride,
    k: tl.constexpr, GRADS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    valid = row < tokens
    mask = valid[:, None] & (column < k)[None, :]
    place = row.to(tl.int64)[:, None]
    x = tl.load(rows + place * stride + column[None, :], mask=mask, other=0.0)
    # magnitudes of floats are in the order of their bits, NaN above infinity
    largest = tl.max(x.to(tl.int32, bitcast=True) & 0x7FFFFFFF, axis=1)
    zero = largest == 0
    # below 2^-126 the bits are a whole number of 2^-149
    whole = (largest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127 - 149
    own = tl.where(largest < 0x00800000, whole, (largest >> 23) - 127)
    own = tl.where(zero | (largest >= 0x7F800000), 0, own)
    if GRADS:
        inputs = tl.load(input_exponent + row, mask=valid, other=0).to(tl.int32)
        total = own + inputs
        kept = tl.minimum(tl.maximum(total, -128), 127)
        divisor = tl.minimum(tl.maximum(kept - inputs, -252), 252)
        too_large = (total > 127) & ~zero
        kept = tl.where(zero, -128, kept)
    else:
        kept = tl.minimum(tl.maximum(own, -128), 127)
        divisor = kept
        too_large = kept > 127
    half = divisor >> 1  # in two steps, since 2^149 is no float32
    rest = tl.where(too_large, float("inf"), _power(half - divisor))
    rounded = (x * _power(-half)[:, None] * rest[:, None]).to(tl.float16)
    tl.store(halves + place * k + column[None, :], rounded, mask=mask)
    tl.store(exponent + row, kept.to(tl.int8), mask=valid)


def round_rows(rows: Tensor, input_exponent: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`rounding.half_rows`, or with the exponents of the inputs `rounding.half_output_grads`.

    Args:
        rows: float32 [n, k], columns next to each other.
        input_exponent: int8 [n].

    Returns:
        float16 [n, k], and exponents int8 [n].
    """
    tokens, k = rows.shape
    halves = torch.empty(tokens, k, dtype=torch.float16, device=rows.device)
    exponent = torch.empty(tokens, dtype=torch.int8, device=rows.device)
    width = triton.next_power_of_2(k)
    block = max(1, _TILE // width)
    if tokens:
        known = exponent if input_exponent is None else input_exponent
        _round[(triton.cdiv(tokens, block),)](
            rows, known, halves, exponent, tokens, rows.stride(0), k, input_exponent is not None, block, width
        )
    return halves, exponent
