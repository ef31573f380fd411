"""The rows that a Hessian sums over, and its damping.

Symbols
    x_n     row n in R^D, flattened from a k_out x k_in matrix (k_in varies fastest)
            source token:     N = T tokens,    x_t = g_t = v_t u_t^T
            source response:  N = R responses, x_r = g_r = sum of its tokens' g_t
    X       [N, D], one row each
    lambda  damping > 0
    H       X^T X + lambda I   [D, D]
    K       X X^T              [N, N]

Formulas
    hessian   X^T X
    gram      K: token (U U^T) * (V V^T) elementwise, since <v u^T, v' u'^T> = <v, v'><u, u'>; response X X^T
    combine   C X, for coefficients C [n, N]
    apply     W (X^T X + lambda I), for directions W [n, D]
    trace     tr(X^T X) = sum_n |x_n|^2: token |u_t|^2 |v_t|^2; needs no Hessian

Token rows are never all materialised: they come in blocks of bounded size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BLOCK_BYTES = 64 * 2**20
"""Most bytes of token rows that are materialised at once."""
RELATIVE_DAMPING = 0.1
"""Default damping, relative to the mean diagonal entry of the undamped Hessian."""


class GradientRows(Protocol):
    """X without saying how it is stored."""

    @property
    def count(self) -> int:
        """N."""

    @property
    def dim(self) -> int:
        """D."""

    def blocks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """Consecutive rows of X, [b, D] each."""

    def gram(self) -> Tensor:
        """K, float64 [N, N]."""

    def trace(self) -> float:
        """tr(X^T X), summed in float64."""


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rows as factors."""

    inputs: Tensor
    """u [T, k_in]."""
    output_grads: Tensor
    """v [T, k_out]."""
    block_bytes: int = BLOCK_BYTES

    @property
    def count(self) -> int:
        return len(self.inputs)

    @property
    def dim(self) -> int:
        return self.inputs.shape[1] * self.output_grads.shape[1]

    def blocks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        size = max(1, self.block_bytes // (self.dim * dtype.itemsize))
        for u, v in zip(self.inputs.split(size), self.output_grads.split(size), strict=True):
            yield (v.to(dtype)[:, :, None] * u.to(dtype)[:, None, :]).flatten(1)

    def gram(self) -> Tensor:
        u, v = self.inputs.double(), self.output_grads.double()
        return (u @ u.T).mul_(v @ v.T)

    def trace(self) -> float:
        u, v = self.inputs.double(), self.output_grads.double()
        return float((u.square().sum(dim=1) * v.square().sum(dim=1)).sum())


@dataclass(frozen=True, eq=False)
class DenseRows:
    """Rows as they are."""

    rows: Tensor
    """X [N, D]."""

    @property
    def count(self) -> int:
        return len(self.rows)

    @property
    def dim(self) -> int:
        return self.rows.shape[1]

    def blocks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        yield self.rows.to(dtype)

    def gram(self) -> Tensor:
        rows = self.rows.double()
        return rows @ rows.T

    def trace(self) -> float:
        return float(self.rows.double().square().sum())


def damping(rows: GradientRows, reg_lambda: float) -> float:
    """lambda: `reg_lambda` where positive, else 0.1 tr(X^T X) / D. Zero only where every row is zero."""
    return reg_lambda if reg_lambda > 0 else RELATIVE_DAMPING * rows.trace() / rows.dim


def hessian(rows: GradientRows, like: Tensor) -> Tensor:
    """X^T X [D, D], undamped, in the dtype and on the device of `like`."""
    total = like.new_zeros(rows.dim, rows.dim)
    for block in rows.blocks(like.dtype):
        total.addmm_(block.T, block)
    return total


def combine(rows: GradientRows, coefficients: Tensor) -> Tensor:
    """C X [n, D] for C [n, N], in the dtype of C."""
    total = coefficients.new_zeros(len(coefficients), rows.dim)
    start = 0
    for block in rows.blocks(coefficients.dtype):
        total.addmm_(coefficients[:, start : start + len(block)], block)
        start += len(block)
    return total


def apply(rows: GradientRows, damping: float, directions: Tensor) -> Tensor:
    """W H [n, D] for W [n, D], with H = X^T X + lambda I never formed; in the dtype of W."""
    total = directions * damping
    for block in rows.blocks(directions.dtype):
        total.addmm_(directions @ block.T, block)
    return total
