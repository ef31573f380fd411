"""Source response, all groups of a module at once: their Gram matrices are the blocks of one R' x R' matrix.

Symbols
    G       [R', D] response gradients, K = G G^T with zeros between groups, L = diag(lambda of each response's group)
    Omega   [n, R'] all groups' weights, block by block

Formulas
    W       Y G,  Y = Omega (K + L)^-1                    each block the dual route of `solve.py`
    true leave-one-out   Y_r - Y_rr / P_rr P_r,  P = (K + L)^-1        the rank-one case of the formula there
    residual             |(Y (K + L) - Omega) G| / |Omega G|           taken in the R' coefficients
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.curvature import damping
from trainer_ext.influence.factorisation import NotPositiveDefinite
from trainer_ext.influence.layout import Layout
from trainer_ext.influence.staging import Staged

MOST_RESPONSES = 4096
"""R' up to which the zeros between groups cost less than a solution for each group."""


def solve_response_source(
    module: Staged, gradients: Tensor, layout: Layout, config: InfluenceConfig
) -> tuple[Tensor, float]:
    """W of all groups, float64 [sum of n, D], and the largest relative residual.

    Args:
        gradients: G, float64 [R', D].

    Raises:
        NotPositiveDefinite: a group's damping is too small.
    """
    group, weights = layout.group_of, layout.weights
    gram = gradients @ gradients.T
    gram = torch.where(group[:, None] == group[None, :], gram, 0.0)
    numbers = torch.arange(len(layout.groups), device=gram.device)
    trace = (numbers[:, None] == group[None, :]).double() @ gram.diagonal()
    values = damping(trace, gradients.shape[1], config.reg_lambda)
    if config.reg_lambda > 0:
        values = values / module.unit.square()
    system = gram + values[group].diag()
    factor, info = torch.linalg.cholesky_ex(system)
    coefficients = torch.cholesky_solve(weights.T, factor).T
    if config.true_loo:
        inverse = torch.cholesky_inverse(factor)
        coefficients = coefficients - (coefficients.diagonal() / inverse.diagonal())[:, None] * inverse
        coefficients = coefficients.clone().fill_diagonal_(0)
    error = coefficients @ system - weights
    if config.true_loo:
        error = error.clone().fill_diagonal_(0)  # what the own row would contribute is not part of the system
    sizes = [_lengths(gram, rows) for rows in (error, weights)]
    residual = (sizes[0] / torch.where(sizes[1] > 0, sizes[1], 1.0)).max()
    failed, worst = torch.stack([info.double(), residual]).tolist()  # the one wait
    if failed:
        raise NotPositiveDefinite(float(values.min()), len(gram))
    return coefficients @ gradients, worst


def by_group(directions: Tensor, layout: Layout) -> dict[int, Tensor]:
    """Rows of all groups' directions, by group."""
    return dict(enumerate(directions.split([len(group.omega) for group in layout.groups])))


def _lengths(gram: Tensor, coefficients: Tensor) -> Tensor:
    """|c G| for coefficients c [n, R'], from K."""
    return ((coefficients @ gram) * coefficients).sum(dim=1).clamp(min=0).sqrt()
