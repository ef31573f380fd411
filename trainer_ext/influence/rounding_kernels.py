"""Triton kernel of `rounding.py`: rows picked out of a matrix, scaled, weighed and rounded in one launch. CUDA only, imported
on first use there. The plain equivalents, `PickedRows.values` and then `rounding.py`, multiply in the same order: rows that
are finite agree to the bit.
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


@triton.jit(do_not_specialize=["tokens"])  # every pass has another number, and must not be compiled for it
def _round(
    rows, positions, weights, input_exponent, halves, exponent, scale, tokens, stride,
    k: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    valid = row < tokens
    mask = valid[:, None] & (column < k)[None, :]
    place = row.to(tl.int64)
    source = place
    if positions is not None:
        source = tl.load(positions + row, mask=valid, other=0)
    x = tl.load(rows + source[:, None] * stride + column[None, :], mask=mask, other=0.0).to(tl.float32) * scale
    if weights is not None:
        x *= tl.load(weights + row, mask=valid, other=0.0).to(tl.float32)[:, None]
    # magnitudes of floats are in the order of their bits, NaN above infinity
    largest = tl.max(x.to(tl.int32, bitcast=True) & 0x7FFFFFFF, axis=1)
    zero = largest == 0
    # below 2^-126 the bits are a whole number of 2^-149
    whole = (largest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127 - 149
    own = tl.where(largest < 0x00800000, whole, (largest >> 23) - 127)
    own = tl.where(zero | (largest >= 0x7F800000), 0, own)
    if input_exponent is not None:
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
    tl.store(halves + place[:, None] * k + column[None, :], rounded, mask=mask)
    tl.store(exponent + row, kept.to(tl.int8), mask=valid)


def round_rows(
    rows: Tensor,
    input_exponent: Tensor | None = None,
    *,
    positions: Tensor | None = None,
    scale: float = 1.0,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`rounding.half_rows`, or with the exponents of the inputs `rounding.half_output_grads`, of `PickedRows`.

    Args:
        rows: float32, bfloat16 or float16 [N, k], columns next to each other; may be some columns of a wider matrix.
        input_exponent: int8 [n].
        positions: int64 [n], the rows that are wanted, from 0 to N - 1 (not checked); None: all, and n = N.
        scale: rounded to float32.
        weights: floating point [n], rounded to float32; None: ones.

    Returns:
        float16 [n, k], and exponents int8 [n].
    """
    tokens, k = len(rows) if positions is None else len(positions), rows.shape[1]
    halves = torch.empty(tokens, k, dtype=torch.float16, device=rows.device)
    exponent = torch.empty(tokens, dtype=torch.int8, device=rows.device)
    width = triton.next_power_of_2(k)
    block = max(1, _TILE // width)
    if tokens:
        _round[(triton.cdiv(tokens, block),)](
            rows,
            None if positions is None else positions.contiguous(),
            None if weights is None else weights.contiguous(),
            input_exponent,
            halves,
            exponent,
            scale,
            tokens,
            rows.stride(0),
            k,
            block,
            width,
        )
    return halves, exponent
