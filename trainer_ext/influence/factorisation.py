"""Ways to apply H^-1 to anything: the two factorisations, and the Kronecker approximation that only preconditions.

direct      Cholesky of H [D, D] in float64, or in blocks on the tensor cores (`cholesky.py`)
dual        Cholesky of K + lambda I [N, N]: d H^-1 = (d - (d X^T) (K + lambda I)^-1 X) / lambda
kronecker   H ~ A x B / tr + lambda I in the eigenbases of A and B (K-FAC: Martens and Grosse 2015)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from trainer_ext.influence.cholesky import BlockedCholesky
from trainer_ext.influence.curvature import GradientRows
from trainer_ext.influence.pairs import expanded


class Inverse(Protocol):
    """H^-1, exact or nearly."""

    def solve(self, right_hand_sides: Tensor) -> Tensor:
        """d H^-1, float64 [n, D]."""


class NotPositiveDefinite(ValueError):
    """The damping is too small for float64."""

    def __init__(self, damping: float, size: int) -> None:
        super().__init__(
            f"reg_lambda: with {damping:.3g} the system of size {size} is not positive definite in float64; raise it, "
            "or set it to -1 for 0.1 tr(H)/D"
        )


@dataclass(frozen=True, eq=False)
class DenseFactor:
    """Cholesky factor of H in float64."""

    factor: Tensor

    @classmethod
    def of(cls, undamped: Tensor, damping: Tensor) -> Self:
        """Factor X^T X + lambda I; overwrites X^T X (float64 [D, D]).

        Raises:
            NotPositiveDefinite: in float64.
        """
        undamped.diagonal().add_(damping)
        factor, info = torch.linalg.cholesky_ex(undamped)
        if int(info):
            raise NotPositiveDefinite(float(damping), len(undamped))
        return cls(factor)

    def solve(self, right_hand_sides: Tensor) -> Tensor:
        return torch.cholesky_solve(right_hand_sides.double().T, self.factor).T

    def inverse(self) -> Tensor:
        """H^-1, float64 [D, D]."""
        return torch.cholesky_inverse(self.factor)


@dataclass(frozen=True, eq=False)
class BlockedFactor:
    """One of the matrices of a `BlockedCholesky`."""

    cholesky: BlockedCholesky
    group: int

    def solve(self, right_hand_sides: Tensor) -> Tensor:
        return self._one().solve(right_hand_sides[None])[0].double()

    def inverse(self) -> Tensor:
        """H^-1, float32 [D, D]."""
        one, dim, width = self._one(), self.cholesky.scale.shape[1], 2048
        out = torch.empty(dim, dim, device=one.scale.device)
        for start in range(0, dim, width):
            columns = torch.zeros(1, min(width, dim - start), dim, device=out.device)
            columns[0].diagonal(offset=start).fill_(1)
            out[start : start + width] = one.solve(columns)[0]
        return out

    def _one(self) -> BlockedCholesky:
        group = slice(self.group, self.group + 1)
        whole = self.cholesky
        return BlockedCholesky(whole.scale[group], whole.lower[group], whole.inverses[group])


@dataclass(frozen=True, eq=False)
class DualFactor:
    """Cholesky factor of K + lambda I in float64: the system has lambda at a millionth of its trace where rows are
    few."""

    rows: GradientRows
    damping: Tensor
    factor: Tensor

    @classmethod
    def of(cls, rows: GradientRows, damping: Tensor) -> Self:
        """Factor.

        Raises:
            NotPositiveDefinite: in float64.
        """
        gram = rows.gram()
        gram.diagonal().add_(damping)
        factor, info = torch.linalg.cholesky_ex(gram)
        if int(info):
            raise NotPositiveDefinite(float(damping), len(gram))
        return cls(rows, damping, factor)

    def solve(self, right_hand_sides: Tensor) -> Tensor:
        through = self.coefficients(self.rows.products(right_hand_sides))
        return (right_hand_sides - self.rows.combine(through)) / self.damping

    def coefficients(self, values: Tensor) -> Tensor:
        """A (K + lambda I)^-1, float64 [n, N], for A [n, N]."""
        return torch.cholesky_solve(values.T, self.factor).T

    def inverse(self) -> Tensor:
        """(K + lambda I)^-1, float64 [N, N]."""
        return torch.cholesky_inverse(self.factor)


@dataclass(frozen=True, eq=False)
class KroneckerFactor:
    """H ~ A x B / tr + lambda I by eigenvectors of A and B; exact where H is such a product."""

    left: Tensor
    right: Tensor
    spectrum: Tensor
    """float64 [k_large, k_small]."""

    @classmethod
    def of(cls, a: Tensor, b: Tensor, damping: Tensor) -> Self:
        """From A [k_large, k_large] and B [k_small, k_small] of equal trace (`curvature.py`)."""
        (a_values, left), (b_values, right) = torch.linalg.eigh(a), torch.linalg.eigh(b)
        trace = a_values.sum()
        trace = torch.where(trace > 0, trace, 1.0)
        return cls(left, right, a_values.clamp(min=0)[:, None] * b_values.clamp(min=0)[None, :] / trace + damping)

    def solve(self, right_hand_sides: Tensor) -> Tensor:
        matrices = right_hand_sides.double().unflatten(1, self.spectrum.shape)
        rotated = (self.left.T @ matrices @ self.right) / self.spectrum
        return (self.left @ rotated @ self.right.T).flatten(1)


def dense_hessian(compact: Tensor, sides: tuple[int, int]) -> Tensor:
    """X^T X, float64 [D, D], from its distinct entries."""
    return expanded(compact.double(), *sides)
