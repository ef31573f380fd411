"""Directions H^-1 d: routes by name, true leave-one-out, and the residual that judges each answer.

Symbols (those of `curvature.py`, and)
    A       [n, N] coefficients of the right-hand sides in the Hessian's own rows, d = A X
    d       [n, D] right-hand sides
    W       [n, D] = d H^-1

Formulas
    direct    W = d (X^T X + lambda I)^-1      Cholesky of [D, D]
    dual      W = A (K + lambda I)^-1 X        Cholesky of [N, N]; the same, since X H^-1 = (K + lambda I)^-1 X
    pcg       conjugate gradients, preconditioned by the Kronecker approximation of H
    true leave-one-out, H_-r without the rows S of response r
              dual: Y = A P - (A P)_S (P_SS)^-1 P_S, W = Y X, with P = (K + lambda I)^-1 and A_S = 0
              others: conjugate gradients on H_-r, preconditioned by what solved H
    residual  max over right-hand sides of |W H - d| / |d|, with H applied through its rows

Whatever solved the system, its answer is refined by conjugate gradients on the rows themselves until the residual is
below the tolerance; the solver then only preconditions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from trainer_ext.influence.cg import conjugate_gradients, driven
from trainer_ext.influence.curvature import GradientRows
from trainer_ext.influence.factorisation import DualFactor, Inverse, KroneckerFactor

Route = Literal["direct", "dual", "pcg"]

ITERATIONS = 1000
"""Most iterations of one system."""


@dataclass(frozen=True, eq=False)
class DampedSystem:
    """d = W H to solve for W."""

    rows: GradientRows
    damping: Tensor
    """lambda, float64 0-d."""
    omega: Tensor
    """float64 [n, R]: weight of each response in each direction; A = omega[:, rows.owner]."""
    directions: Tensor
    """d, float64 [n, D]."""
    without: Tensor | None = None
    """int64 [n]: the response whose rows H leaves out for each direction; None: H is the same for all."""

    def apply(self, solution: Tensor) -> Tensor:
        """W H [n, D]."""
        return self.rows.apply(solution, self.damping, self.without)


@dataclass(frozen=True, eq=False)
class Solution:
    """W and how good it is."""

    directions: Tensor
    """W, float64 [n, D]."""
    residual: float
    inverse: Inverse
    """What solved the system, exact or nearly."""


def solve_dual(system: DampedSystem, tolerance: float = math.inf) -> Solution:
    """W through the N x N Gram matrix of the rows, in float64, refined where its residual is above the tolerance.

    Raises:
        NotPositiveDefinite: the damping is too small.
    """
    factor = DualFactor.of(system.rows, system.damping)
    coefficients = factor.coefficients(system.omega[:, system.rows.owner])
    if system.without is not None:
        inverse = factor.inverse()
        for row, response in zip(coefficients, system.without, strict=True):
            own = (system.rows.owner == response).nonzero().flatten()
            if len(own):
                row -= torch.linalg.solve(inverse[own][:, own], row[own]) @ inverse[own]
                row[own] = 0
    solution = system.rows.combine(coefficients)
    residual = float(largest_residual(system, solution))
    return (
        Solution(solution, residual, factor) if residual <= tolerance else refined(system, solution, factor, tolerance)
    )


def solve_pcg(system: DampedSystem, tolerance: float) -> Solution:
    """W by iteration from zero."""
    factor = KroneckerFactor.of(*system.rows.kronecker(), system.damping)
    return refined(system, torch.zeros_like(system.directions), factor, tolerance)


def solve_exactly(system: DampedSystem, inverse: Inverse, tolerance: float) -> Solution:
    """W through an exact inverse of the group's whole Hessian, refined where its residual is above the tolerance."""
    return refined(system, inverse.solve(system.directions), inverse, tolerance)


def refined(system: DampedSystem, start: Tensor, inverse: Inverse, tolerance: float) -> Solution:
    """W by conjugate gradients from a first guess, with the inverse as preconditioner; the guess itself where it is
    good enough."""
    iteration = conjugate_gradients(
        system.directions, start, _safely(inverse), tolerance, min(ITERATIONS, 10 * system.directions.shape[1] + 10)
    )
    end = driven(iteration, system.apply)
    return Solution(end.solution, float(end.residual), inverse)


def largest_residual(system: DampedSystem, solution: Tensor) -> Tensor:
    """max over right-hand sides of |W H - d| / |d|, 0-d; a zero right-hand side counts |W H|."""
    size = system.directions.norm(dim=1)
    error = (system.apply(solution) - system.directions).norm(dim=1)
    return (error / torch.where(size > 0, size, 1.0)).max()


def _safely(inverse: Inverse) -> partial[Tensor]:
    return partial(_solved_or_as_is, inverse)


def _solved_or_as_is(inverse: Inverse, residual: Tensor) -> Tensor:
    """What the inverse makes of a residual; the residual itself where the inverse broke down."""
    solved = inverse.solve(residual)
    return torch.where(solved.isfinite().all(), solved, residual)
