"""Directions H^-1 d: routes by name, the choice between them, and the residual that certifies each answer.

Symbols (those of `curvature.py`, and)
    A       [n, N] coefficients of the right-hand sides in the Hessian's own rows, d = A X
    d       [n, D] right-hand sides
    W       [n, D] = d H^-1

Formulas
    direct    W = d (X^T X + lambda I)^-1      Cholesky of [D, D]
    dual      W = A (K + lambda I)^-1 X        Cholesky of [N, N]; the same, since X H^-1 = (K + lambda I)^-1 X
    residual  max over right-hand sides of |W H - d| / |d|, with H applied through its rows in float64

Systems are factored in float64 whatever the precision: the dual one with few rows has lambda at a millionth of its
trace, and on an H200 float64 Cholesky was measured no slower than float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.curvature import BLOCK_BYTES, GradientRows, apply, combine, hessian

Route = Literal["direct", "dual"]


@dataclass(frozen=True, eq=False)
class DampedSystem:
    """d = W H to solve for W."""

    rows: GradientRows
    damping: float
    coefficients: Tensor
    """A [n, N]."""
    directions: Tensor
    """d [n, D]; its dtype is that of the products over rows and of W."""


def solve_direct(system: DampedSystem) -> Tensor:
    """W [n, D] through the D x D Hessian."""
    matrix = hessian(system.rows, like=system.directions).double()
    return _cholesky_solve(matrix, system.damping, system.directions).to(system.directions.dtype)


def solve_dual(system: DampedSystem) -> Tensor:
    """W [n, D] through the N x N Gram matrix of the rows."""
    coefficients = _cholesky_solve(system.rows.gram(), system.damping, system.coefficients)
    return combine(system.rows, coefficients.to(system.directions.dtype))


SOLVERS: Mapping[Route, Callable[[DampedSystem], Tensor]] = MappingProxyType(
    {"direct": solve_direct, "dual": solve_dual}
)


def choose_route(rows: GradientRows, config: InfluenceConfig) -> Route:
    """The route that the config names; `auto` takes the smaller of the two systems."""
    if config.solver != "auto":
        return config.solver
    return "dual" if rows.count < rows.dim else "direct"


def solve(system: DampedSystem, route: Route) -> tuple[Tensor, float]:
    """Solve by a named route.

    Rows that are all zero leave nothing to damp by and d = 0: the answer is then zero.

    Returns:
        W [n, D] and its true relative residual.

    Raises:
        ValueError: `reg_lambda` is so small for these rows that the system is not positive definite in float64.
    """
    if system.damping == 0:
        return torch.zeros_like(system.directions), 0.0
    solution = SOLVERS[route](system)
    return solution, relative_residual(system, solution)


def relative_residual(system: DampedSystem, solution: Tensor) -> float:
    """max over right-hand sides of |W H - d| / |d| in float64; a zero right-hand side counts |W H|."""
    target = system.directions.double()
    error = (apply(system.rows, system.damping, solution.double()) - target).norm(dim=1)
    size = target.norm(dim=1)
    return float((error / torch.where(size > 0, size, 1.0)).max())


def buffer_bytes(route: Route, rows: GradientRows, right_hand_sides: int) -> int:
    """Most bytes that a route holds at once beyond the factors, counted from shapes (not measured), all as float64.

    Either two matrices of the route's own size (a system and its factor, or one and its other operand), or, when the
    rows are applied, one block of them. Beside that right-hand sides, solution, residual and one more of either kind.
    """
    size = rows.dim if route == "direct" else rows.count
    block = min(BLOCK_BYTES, rows.count * rows.dim * 8)
    return 8 * (2 * size * size + 4 * right_hand_sides * (rows.dim + rows.count)) + block


def _cholesky_solve(matrix: Tensor, damping: float, right_hand_sides: Tensor) -> Tensor:
    """B (M + lambda I)^-1 for symmetric M, float64 [n, m]; overwrites M."""
    matrix.diagonal().add_(damping)
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info):
        raise ValueError(
            f"reg_lambda: with {damping:.3g} the system of size {len(matrix)} and trace {float(matrix.trace()):.3g} "
            "is not positive definite in float64; raise it, or set it to -1 for 0.1 tr(H)/D"
        )
    return torch.cholesky_solve(right_hand_sides.double().T, factor).T
