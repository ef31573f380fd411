"""From differences of pairs' gradients to directions: a singular value decomposition a module."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDING = 1e-10
"""Share of the strongest singular value below which an axis, or what a pair has along one, is the rounding of float64."""


def directions(differences: Tensor, k: int, tau_axis: float = 0.0) -> tuple[Tensor, Tensor]:
    """The strongest right singular vectors of the pairs' differences, pointing toward the hack.

    A vector points to the side on which most pairs lie; where they split evenly, to the side of the pairs' mean. Pairs that
    have nothing along it do not vote. Where pairs span fewer dimensions than k, the rest of the axes are zero: nothing says
    where these would point.

    Args:
        differences: g_hack - g_clean of each pair in a module's SVD basis, floating point [pairs, r].
        k: how many; at most min(pairs, r) come back.
        tau_axis: axes weaker than this share of the strongest become zero, vector and singular value.

    Returns:
        V float32 [k', r], rows orthonormal or zero, and S float32 [k'], descending.

    Raises:
        ValueError: k below 1, tau_axis outside [0, 1], or differences that are not finite.
    """
    if k < 1:
        raise ValueError(f"k: must be 1 or more, got {k}")
    if not 0 <= tau_axis <= 1:
        raise ValueError(f"tau_axis: must be between 0 and 1, got {tau_axis}")
    if not bool(differences.isfinite().all()):
        raise ValueError("differences of gradients are not finite")
    _, s, vh = torch.linalg.svd(differences.double(), full_matrices=False)
    s, v = s[:k], vh[:k]
    sides = differences.double() @ v.T
    votes = (sides > ROUNDING * s[0]).sum(dim=0) - (sides < -ROUNDING * s[0]).sum(dim=0)
    votes = torch.where(votes == 0, sides.sum(dim=0), votes.double())
    v = v * torch.where(votes < 0, -1.0, 1.0)[:, None]
    strong = (s >= tau_axis * s[0]) & (s > ROUNDING * s[0])
    return (v * strong[:, None]).float(), (s * strong).float()
