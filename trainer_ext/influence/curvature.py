"""The rows that a Hessian sums over, its damping, and products with it that never form it.

Symbols
    x_n     row n in R^D, flattened from a matrix of sides k_large x k_small (the small one varies fastest)
            source token:     N = T tokens,    x_t = g_t = 2^e_t l_t s_t^T
            source response:  N = R responses, x_r = g_r = sum of its tokens' g_t
    l, s    the two factors of a token, the longer one first; which of them is the input does not matter here
    X       [N, D], one row each
    lambda  damping > 0
    H       X^T X + lambda I   [D, D]
    K       X X^T              [N, N]

Formulas
    products   W X^T for directions W [n, D]: token w_i . x_t = 2^e l_t^T W_i s_t, one product of matrices and a sum
    combine    C X for coefficients C [n, N]
    apply      W H = (W X^T) X + lambda W;  with `without`, rows of the response left out of a direction are skipped
    gram       K: token 4^e (L L^T) * (S S^T) elementwise; response X X^T
    trace      tr(X^T X) = sum_n |x_n|^2: token 4^e |l_t|^2 |s_t|^2; needs no Hessian
    kronecker  A [k_large, k_large], B [k_small, k_small] with tr(A) = tr(B) = tr(H), H ~ A x B / tr(H)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trainer_ext.influence.split import Split, split, times_power

CHUNK_BYTES = 256 * 2**20
"""Most bytes of an intermediate over tokens at once."""
RELATIVE_DAMPING = 0.1
"""Default damping, relative to the mean diagonal entry of the undamped Hessian."""


class GradientRows(Protocol):
    """X without saying how it is stored."""

    @property
    def count(self) -> int:
        """N."""

    @property
    def sides(self) -> tuple[int, int]:
        """(k_large, k_small)."""

    @property
    def owner(self) -> Tensor:
        """int64 [N]: the response, counted within the group, that each row belongs to."""

    def apply(self, directions: Tensor, damping: Tensor, without: Tensor | None = None) -> Tensor:
        """W H [n, D], float64; `without` int64 [n]: the response whose rows each direction does not see."""

    def combine(self, coefficients: Tensor) -> Tensor:
        """C X, float64 [n, D]."""

    def products(self, directions: Tensor) -> Tensor:
        """W X^T, float64 [n, N]."""

    def gram(self) -> Tensor:
        """K, float64 [N, N]."""

    def square_norms(self) -> Tensor:
        """|x_n|^2, float64 [N]."""

    def kronecker(self) -> tuple[Tensor, Tensor]:
        """A and B, float64."""


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Rows as factors.

    Float16 factors come with `exponent`, and their products run on the tensor cores where there are any; others are
    taken to `work` chunk by chunk.
    """

    large: Tensor
    """l [T, k_large]."""
    small: Tensor
    """s [T, k_small]."""
    owner: Tensor
    exponent: Tensor | None = None
    """e, int32 [T], none above zero; None: zero for all."""
    work: torch.dtype = torch.float64

    @property
    def count(self) -> int:
        return len(self.large)

    @property
    def sides(self) -> tuple[int, int]:
        return self.large.shape[1], self.small.shape[1]

    def factors(self, tokens: slice = slice(None), dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
        """(l, s) of some tokens in full, their powers multiplied into s."""
        large, small = self.large[tokens].to(dtype), self.small[tokens].to(dtype)
        return (large, small) if self.exponent is None else (large, times_power(small, self.exponent[tokens, None]))

    def apply(self, directions: Tensor, damping: Tensor, without: Tensor | None = None) -> Tensor:
        n, (k_large, k_small) = len(directions), self.sides
        arithmetic = _HalfProducts if self.large.dtype == torch.float16 and self.large.is_cuda else _PlainProducts
        operator = arithmetic(self, directions)
        total = directions.new_zeros(k_large, n * k_small, dtype=torch.float64)
        for tokens in self._chunks(n * k_small * 4):
            weights = operator.products(tokens)
            if without is not None:
                weights = weights.masked_fill(self.owner[tokens, None] == without[None, :], 0)
            total += operator.combine(tokens, weights)
        summed = total.reshape(k_large, n, k_small).transpose(0, 1).reshape(n, -1)
        return summed + damping * directions

    def combine(self, coefficients: Tensor) -> Tensor:
        n, (k_large, k_small) = len(coefficients), self.sides
        total = coefficients.new_zeros(k_large, n * k_small, dtype=torch.float64)
        for tokens in self._chunks(n * k_small * 8):
            large, small = self.factors(tokens)
            total.addmm_(large.T, (coefficients.T[tokens, :, None] * small[:, None, :]).flatten(1))
        return total.reshape(k_large, n, k_small).transpose(0, 1).reshape(n, -1)

    def products(self, directions: Tensor) -> Tensor:
        operator = _PlainProducts(self, directions)
        parts = [operator.products(tokens).T for tokens in self._chunks(len(directions) * self.sides[1] * 8)]
        return torch.cat(parts, dim=1).double()

    def gram(self) -> Tensor:
        large, small = self.factors()
        return (large @ large.T).mul_(small @ small.T)

    def square_norms(self) -> Tensor:
        if self.exponent is not None and self.large.is_cuda and self.large.dtype == torch.float16:
            from trainer_ext.influence import kernels  # Triton comes with CUDA builds of torch alone

            return kernels.square_norms(self.large, self.small, self.exponent)
        dtype = torch.float32 if self.large.dtype == torch.float16 else torch.float64
        norms = [torch.linalg.vector_norm(side, dim=1, dtype=dtype).double() for side in (self.large, self.small)]
        product = norms[0] * norms[1]
        return (product if self.exponent is None else times_power(product, self.exponent)).square()

    def kronecker(self) -> tuple[Tensor, Tensor]:
        k_large, k_small = self.sides
        a = self.large.new_zeros(k_large, k_large, dtype=torch.float64)
        b = self.large.new_zeros(k_small, k_small, dtype=torch.float64)
        for tokens in self._chunks(8 * (k_large + k_small)):
            large, small = self.factors(tokens)
            a.addmm_((large * small.square().sum(dim=1, keepdim=True)).T, large)
            b.addmm_((small * large.square().sum(dim=1, keepdim=True)).T, small)
        return a, b

    def _chunks(self, bytes_per_token: int) -> Iterator[slice]:
        size = max(1, CHUNK_BYTES // max(1, bytes_per_token))
        for start in range(0, self.count, size):
            yield slice(start, min(start + size, self.count))


@dataclass(frozen=True, eq=False)
class DenseRows:
    """Rows as they are, one per response."""

    rows: Tensor
    """X float64 [N, D]."""
    sides: tuple[int, int]

    @property
    def count(self) -> int:
        return len(self.rows)

    @property
    def owner(self) -> Tensor:
        return torch.arange(len(self.rows), device=self.rows.device)

    def apply(self, directions: Tensor, damping: Tensor, without: Tensor | None = None) -> Tensor:
        weights = self.products(directions)
        if without is not None:
            weights = weights.masked_fill(self.owner[None, :] == without[:, None], 0)
        return weights @ self.rows + damping * directions

    def combine(self, coefficients: Tensor) -> Tensor:
        return coefficients @ self.rows

    def products(self, directions: Tensor) -> Tensor:
        return directions @ self.rows.T

    def gram(self) -> Tensor:
        return self.rows @ self.rows.T

    def square_norms(self) -> Tensor:
        return self.rows.square().sum(dim=1)

    def kronecker(self) -> tuple[Tensor, Tensor]:
        matrices = self.rows.unflatten(1, self.sides)
        tall = matrices.transpose(0, 1).flatten(1)
        wide = matrices.flatten(0, 1)
        return tall @ tall.T, wide.T @ wide


def damping(trace: Tensor, dim: int, reg_lambda: float) -> Tensor:
    """lambda, float64 0-d: `reg_lambda` where positive, else 0.1 tr(X^T X) / D.

    Rows that are all zero leave nothing to damp by and every right-hand side zero: any lambda gives the answer zero.
    """
    value = torch.full_like(trace, reg_lambda) if reg_lambda > 0 else RELATIVE_DAMPING * trace / dim
    return value.masked_fill(value <= 0, 1.0)  # not where(): it copies its scalar to the device, and waits


class _PlainProducts:
    """The two products of `TokenRows.apply` in the rows' work type."""

    def __init__(self, rows: TokenRows, directions: Tensor) -> None:
        self._rows, self._n = rows, len(directions)
        matrices = directions.to(rows.work).unflatten(1, rows.sides)
        self._matrix = matrices.transpose(0, 1).flatten(1)  # [k_large, n k_small]

    def products(self, tokens: slice) -> Tensor:
        """[b, n]."""
        large, small = self._rows.factors(tokens, self._rows.work)
        return ((large @ self._matrix).unflatten(1, (self._n, -1)) * small[:, None, :]).sum(dim=2)

    def combine(self, tokens: slice, weights: Tensor) -> Tensor:
        """[k_large, n k_small]."""
        large, small = self._rows.factors(tokens, self._rows.work)
        return large.T @ (weights[:, :, None] * small[:, None, :]).flatten(1)


class _HalfProducts:
    """The same on the tensor cores: float16 factors, directions in two halves, float32 sums."""

    def __init__(self, rows: TokenRows, directions: Tensor) -> None:
        self._rows, self._n = rows, len(directions)
        matrices = directions.float().unflatten(1, rows.sides)
        self._matrix: Split = split(matrices.transpose(0, 1).flatten(1), dim=(0, 1))

    def products(self, tokens: slice) -> Tensor:
        large, small = self._rows.large[tokens], self._rows.small[tokens]
        product = torch.mm(large, self._matrix.high, out_dtype=torch.float32)
        torch.addmm(product, large, self._matrix.low, out_dtype=torch.float32, out=product)
        weights = (product.unflatten(1, (self._n, -1)).mul_(small[:, None, :])).sum(dim=2)
        return times_power(weights, self._matrix.power + self._exponent(tokens))

    def combine(self, tokens: slice, weights: Tensor) -> Tensor:
        large, small = self._rows.large[tokens], self._rows.small[tokens]
        weights = times_power(weights, self._exponent(tokens))
        halves = split((weights[:, :, None] * small[:, None, :]).flatten(1), dim=(0, 1))
        product = torch.mm(large.T, halves.high, out_dtype=torch.float32)
        torch.addmm(product, large.T, halves.low, out_dtype=torch.float32, out=product)
        return times_power(product.double(), halves.power)

    def _exponent(self, tokens: slice) -> Tensor | int:
        return 0 if self._rows.exponent is None else self._rows.exponent[tokens, None]
