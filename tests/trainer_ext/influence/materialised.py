"""Rows to try the engine's parts on, and the same in full: what factored forms are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.storage import half_rows


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, float64; the same for the same shape and seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def token_rows(
    tokens: int, large: int, small: int, *, responses: int = 3, seed: int = 0, work: torch.dtype = torch.float64
) -> TokenRows:
    """Normal rows in float64, dealt out to the responses in turn."""
    return TokenRows(
        normal(tokens, large, seed=seed),
        normal(tokens, small, seed=seed + 1),
        torch.arange(tokens) % responses,
        work=work,
    )


def half_token_rows(tokens: int, large: int, small: int, *, spread: float = 1.25, seed: int = 0) -> TokenRows:
    """Rows as `fast` keeps them: float16 with powers of two, the largest power zero; lognormal norms."""
    (large_rows, e_large), (small_rows, e_small) = (
        half_rows(normal(tokens, k, seed=seed + i) * (spread / 2**0.5 * normal(tokens, 1, seed=seed + 2 + i)).exp())
        for i, k in enumerate((large, small))
    )
    exponent = e_large.int() + e_small.int()
    return TokenRows(large_rows, small_rows, torch.zeros(tokens, dtype=torch.int64), exponent - exponent.amax())


def in_full(rows: TokenRows) -> Tensor:
    """X, float64 [T, D]: 2^e l s^T of each token."""
    power = torch.zeros(rows.count) if rows.exponent is None else rows.exponent
    product = torch.einsum("t,tb,ta->tba", torch.exp2(power.double()), rows.large.double(), rows.small.double())
    return product.flatten(1)


def double_symmetric(large: int, small: int, *, tokens: int = 0, seed: int = 0) -> Tensor:
    """A matrix with the symmetries of a Gram matrix of rows l s^T, float64 [D, D], over their number."""
    rows = in_full(token_rows(tokens or 2 * large * small, large, small, seed=seed))
    return rows.T @ rows / len(rows)
