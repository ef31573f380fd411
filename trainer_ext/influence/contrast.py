"""Who is contrasted with whom: groups of responses, their signed weights, and the coefficient matrix Omega.

Symbols, per group of R responses
    s_r         signed weight: sum +1 accepted, -1 rejected; mean +1/n_accepted, -1/n_rejected; or the advantage
    Omega       [n, R], one row per direction

Formulas
    shared        Omega = 1 s^T, one row for all
    exclude own   Omega = 1 s^T - diag(s), one row per response
    renormalised  the same, with the rest of the own class times n_class / (n_class - 1)

A response that is excluded as the only one of its class leaves that class no term. A group that holds only accepted or
only rejected responses has no contrast, nor has one whose advantages are all zero where those are the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig


def group_members(group: Tensor, config: InfluenceConfig) -> list[Tensor]:
    """Rows of `Responses` (int64, ascending) of each group that is contrasted within itself, given `Responses.group`
    [R]."""
    if config.scope != "per_prompt":
        return [torch.arange(len(group), device=group.device)]
    return [(group == label).nonzero().flatten() for label in group.unique()]


def response_weights(accepted: Tensor, advantage: Tensor, config: InfluenceConfig) -> Tensor | None:
    """s [R] of one group in float64, or None where the group has no contrast.

    Args:
        accepted: bool [R].
        advantage: floating point [R].
    """
    n_accepted = int(accepted.sum())
    n_rejected = len(accepted) - n_accepted
    if n_accepted == 0 or n_rejected == 0:
        return None
    if config.contrastive_agg == "advantage":
        return advantage.double() if bool(advantage.any()) else None
    signs = accepted.double() * 2 - 1
    if config.contrastive_agg == "sum":
        return signs
    return signs / torch.where(accepted, n_accepted, n_rejected)


def contrast_matrix(weights: Tensor, accepted: Tensor, config: InfluenceConfig) -> Tensor:
    """Omega [R, R] where the own response is excluded, else [1, R], of one group; in the dtype of `weights` [R]."""
    if not config.exclude_self_response:
        return weights[None, :]
    omega = weights.expand(len(weights), -1).clone()
    omega.fill_diagonal_(0)
    if config.renormalises and config.contrastive_agg == "mean":
        same_class = accepted[:, None] == accepted[None, :]
        class_size = same_class.sum(dim=1, keepdim=True).to(omega.dtype)
        # the only one of its class has nothing left to scale: clamp keeps 0 * (1 / 0) from becoming NaN
        omega = torch.where(same_class, omega * class_size / (class_size - 1).clamp(min=1), omega)
    return omega
