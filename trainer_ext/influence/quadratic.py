"""g_t^T H^-1 g_t for every token: its squared length in the metric of the inverse Hessian.

through H^-1 = S     q_t = sum over pairs of B_tm S'_mn A_tn     (`pairs.symmetrised`): as dear as forming H
through K            token source: q = diag(K P), P = (K + lambda I)^-1
                     response source: q_t = (|g_t|^2 - y_t^T P y_t) / lambda, y_t = X g_t
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.factorisation import DualFactor
from trainer_ext.influence.pairs import pair_features, symmetrised

FEATURE_BYTES = 512 * 2**20
"""Most bytes of the larger features at once."""


def through_inverse(rows: TokenRows, inverse: Tensor) -> Tensor:
    """q, float64 [T], from H^-1 [D, D] in the type that it comes in."""
    compact = symmetrised(inverse, *rows.sides)
    m, n = compact.shape
    chunk = max(1, FEATURE_BYTES // (m * compact.element_size()))
    parts = []
    for start in range(0, rows.count, chunk):
        large, small = rows.factors(slice(start, start + chunk), compact.dtype)
        b = pair_features(large, None, large.new_empty(len(large), m))
        a = pair_features(small, None, small.new_empty(len(small), n))
        parts.append(((b @ compact) * a).sum(dim=1).double())
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64, device=inverse.device)


def through_gram(rows: TokenRows, factor: DualFactor) -> Tensor:
    """q, float64 [T], from the dual factor of these tokens' own Hessian or of their responses'."""
    if isinstance(factor.rows, TokenRows):
        gram = rows.gram()
        return (gram * factor.inverse()).sum(dim=1)
    dense = torch.eye(factor.rows.count, dtype=torch.float64, device=rows.large.device)
    overlaps = rows.products(factor.rows.combine(dense))  # y [R, T]
    lower = torch.linalg.solve_triangular(factor.factor, overlaps, upper=False)
    return (rows.square_norms() - lower.square().sum(dim=0)) / factor.damping
