"""The distinct entries of a Gram matrix of token rows, C = B^T A (`pairs.py`), of one group of tokens.

Float16 rows with powers of two (`storage.half_rows`) become float16 features: entries lie below 2, a pair of them below
4, and each side is multiplied by 2^13 and by its token's power relative to the largest of the module, so that the
largest feature stays below 2^15 and a token 2^-27 as large still has normal features on either side. Sums are float32.
Other rows become features of their own type.

What rounding the features costs comes almost wholly from the few tokens with the largest gradients: the error is a sum
of independent terms in proportion to |g_t|^2, so that its variance goes with |g_t|^4. For those tokens the rounding is
taken back to first order, C += B_low^T A + B^T A_low. With lognormal norms (sigma 1.25) a 64th of the tokens brings the
error down to a tenth, at 3% more work. Where C is small, choosing tokens costs more than all of them do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer_ext.influence.pairs import padded_pairs, pair_features

FEATURE_BYTES = 0.5e9
"""Most bytes of features of the large side held at once: some 6,300 tokens at k = 280."""
FEATURE_TOKENS = 2**18
"""Most tokens of one chunk."""
PRECISE_SHARE = 64
"""One token in so many has its rounding taken back."""
SMALL_GRAM = 2**18
"""Entries of C up to which every token has."""
_SHIFT = 13


def compact_gram(large: Tensor, small: Tensor, exponent: Tensor | None, norms: Tensor | None = None) -> Tensor:
    """C [M, N]; float32 for float16 rows, else in their type; arguments as in `gram_into`."""
    m, n = padded_pairs(large.shape[1]), padded_pairs(small.shape[1])
    dtype = torch.float32 if large.dtype == torch.float16 else large.dtype
    return gram_into(large.new_empty(m, n, dtype=dtype), large, small, exponent, norms)


def gram_into(
    total: Tensor, large: Tensor, small: Tensor, exponent: Tensor | None, norms: Tensor | None = None
) -> Tensor:
    """C written to `total` [M, N].

    Args:
        large, small: [T, k] contiguous, of one type.
        exponent: int32 [T], none above 0, with float16 rows; else None.
        norms: |g_t|^2 [T], with float16 rows: the largest are summed more precisely; None: none are.
    """
    m, n = total.shape
    tokens = len(large)
    every = norms is not None and exponent is not None and m * n <= SMALL_GRAM
    chunk = max(1, min(tokens, FEATURE_TOKENS, int(FEATURE_BYTES) // (m * large.element_size())))
    if chunk > 256:
        chunk -= chunk % 64  # the product sums over tokens; its inner length likes to be aligned as well
    buffers = large.new_empty(chunk, m), large.new_empty(chunk, n)
    total.zero_()
    for start in range(0, tokens, chunk):
        at = slice(start, min(start + chunk, tokens))
        power = None if exponent is None else exponent[at]
        b, a = (
            _features(rows[at], power, out[: at.stop - start])
            for rows, out in zip((large, small), buffers, strict=True)
        )
        add_product(total, b.T, a)
        if every:
            add_product(total, _features(large[at], power, torch.empty_like(b), low=True).T, a)
            add_product(total, b.T, _features(small[at], power, torch.empty_like(a), low=True))
    if exponent is None:
        return total
    if norms is not None and tokens and not every:
        _add_rounding(total, large, small, exponent, norms, chunk)
    return total.mul_(2.0 ** (-2 * _SHIFT))


def _add_rounding(total: Tensor, large: Tensor, small: Tensor, exponent: Tensor, norms: Tensor, chunk: int) -> None:
    """What rounding the features of the largest tokens left out of the sum."""
    chosen = norms.float().topk(-(-len(norms) // PRECISE_SHARE), sorted=False).indices  # float64 takes twice the passes
    for tokens in chosen.split(max(1, chunk // 8)):
        (b, b_low), (a, a_low) = (_both_halves(rows[tokens], exponent[tokens]) for rows in (large, small))
        add_product(total, b_low.T, a)
        add_product(total, b.T, a_low)


def _both_halves(rows: Tensor, exponent: Tensor) -> tuple[Tensor, Tensor]:
    """Features rounded, and what the rounding left over."""
    out = rows.new_empty(2, len(rows), padded_pairs(rows.shape[1]))
    return _features(rows, exponent, out[0]), _features(rows, exponent, out[1], low=True)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right; float16 operands are summed in float32, on a CPU after conversion."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif total.is_cuda:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(left.to(total.dtype), right.to(total.dtype))


def _features(rows: Tensor, exponent: Tensor | None, out: Tensor, *, low: bool = False) -> Tensor:
    if exponent is None:
        return pair_features(rows, None, out)
    if rows.is_cuda:
        from trainer_ext.influence import kernels  # Triton comes with CUDA builds of torch alone

        return kernels.pair_features(rows, exponent, _SHIFT, out, low=low)
    exact = pair_features(rows.float(), torch.exp2(exponent + float(_SHIFT)), out.float())
    return out.copy_(exact - exact.half().float() if low else exact)
