"""Rounds projected rows to float16 with a power of two a token.

Symbols
    u_t, v_t    projected input [k_in] and output gradient [k_out] of token t in one module
    a_t, b_t    powers of two that bring the largest magnitude of u_t and of v_t into [1, 2)
    e_t         a_t + b_t, the exponent of the token: g_t = 2^e_t (v_t / 2^b_t) (u_t / 2^a_t)^T

The divided rows are rounded, at most 2^-11 of a row's largest magnitude off, and e_t is kept in an int8. On a GPU one kernel
does it, from the matrix that the rows are picked from (`rounding_kernels.py`); the plain operations here, about twenty
launches a side of a module, were most of what a capture cost there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer_ext.influence.picked_rows import PickedRows

_LOWEST, _HIGHEST = -128, 127
_WIDEST = 4096
"""Columns that the kernel holds at once."""
_READ_BY_KERNEL = (torch.float32, torch.bfloat16, torch.float16)


def half_rows(rows: Tensor | PickedRows) -> tuple[Tensor, Tensor]:
    """Divide each row by the power of two that brings its largest magnitude into [1, 2), and round to float16.

    Nothing here waits for the device. Ends of the range: a zero row keeps exponent 0. Rows below 2^-128 keep exponent
    -128 and are smaller than 1; every float32 of that size still is within 2^-11 of the row's largest. Rows of 2^128
    and more, which float64 alone has, become infinite. NaN and infinity stay what they are.

    Args:
        rows: floating point [n, k], as they are or still to be picked.

    Returns:
        float16 [n, k], and the exponent, int8 [n].
    """
    picked = PickedRows.of(rows)
    if _in_one_kernel(picked.matrix):
        return _rounded_in_one_kernel(picked)
    rows = picked.values()
    exponent, _ = _exponents(rows)
    kept = exponent.clamp(_LOWEST, _HIGHEST)
    return _divided(rows, kept, too_large=exponent > _HIGHEST), kept.to(torch.int8)


def half_output_grads(rows: Tensor | PickedRows, input_exponent: Tensor) -> tuple[Tensor, Tensor]:
    """Output gradients as `half_rows` makes them, and e_t = a_t + b_t, the exponent of the whole token.

    Ends of the range: below -128 the rest of the power goes into the row itself, so that a gradient fades below 2^-142
    and is zero below 2^-153, about where float32 products end. Above 127 float32 cannot hold the gradient: the row
    becomes infinite or NaN, which `ModuleFactors` refuses. A zero row takes -128: any exponent is right for it, and the
    lowest one never is the largest of its module, from which the range of float16 products is reckoned.

    Args:
        rows: v, floating point [n, k_out], as they are or still to be picked.
        input_exponent: a, int8 [n].

    Returns:
        float16 [n, k_out], and e, int8 [n].
    """
    picked = PickedRows.of(rows)
    if _in_one_kernel(picked.matrix):
        return _rounded_in_one_kernel(picked, input_exponent)
    rows = picked.values()
    own, zero = _exponents(rows)
    inputs = input_exponent.to(torch.int32)
    total = own + inputs
    kept = total.clamp(_LOWEST, _HIGHEST)
    halves = _divided(rows, kept - inputs, too_large=(total > _HIGHEST) & ~zero)
    return halves, kept.masked_fill(zero, _LOWEST).to(torch.int8)


def _in_one_kernel(matrix: Tensor) -> bool:
    return (
        matrix.is_cuda and matrix.dtype in _READ_BY_KERNEL and matrix.stride(1) == 1 and 0 < matrix.shape[1] <= _WIDEST
    )


def _rounded_in_one_kernel(picked: PickedRows, input_exponent: Tensor | None = None) -> tuple[Tensor, Tensor]:
    from trainer_ext.influence.rounding_kernels import round_rows

    matrix, positions, scale, weights = picked
    return round_rows(matrix, input_exponent, positions=positions, scale=scale, weights=weights)


def _exponents(rows: Tensor) -> tuple[Tensor, Tensor]:
    """floor(log2) of each row's largest magnitude, int32 [n], 0 where it is zero or not finite; and where it is zero."""
    largest = torch.linalg.vector_norm(rows, math.inf, dim=1)
    exponent = torch.frexp(largest).exponent - 1
    zero = largest == 0
    # not where(): its scalar would be copied to the device, and that waits
    return exponent.masked_fill(zero | ~torch.isfinite(largest), 0), zero


def _divided(rows: Tensor, exponent: Tensor, *, too_large: Tensor) -> Tensor:
    """float16 of rows / 2^exponent; not finite where a row is too large.

    In two steps, since 2^149 (for the smallest float32) is no float32; a power is its bits, since the exponentials of a
    device need not be exact.
    """
    exponent = exponent.clamp(-252, 252)
    first = exponent >> 1
    half, rest = (((127 - part) << 23).view(torch.float32).to(rows.dtype) for part in (first, exponent - first))
    return (rows * half[:, None]).mul_(rest.masked_fill(too_large, math.inf)[:, None]).to(torch.float16)
