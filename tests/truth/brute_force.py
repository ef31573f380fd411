"""Influence scores by the definition, in float64 numpy, with every Hessian materialised and inverted.

The oracle of the influence tests. It shares no code and no shortcut with `trainer_ext.influence`, not even torch: plain
loops over tokens and responses, an explicit inverse, leave-one-out weights counted anew for each token. Small D only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def outer_products(inputs: Floats, output_grads: Floats) -> Floats:
    """Token gradients v_t u_t^T, flattened to [T, k_out * k_in], from factors u [T, k_in] and v [T, k_out]."""
    return np.array([np.outer(v, u).ravel() for u, v in zip(inputs, output_grads, strict=True)])


def token_influence(
    gradients: Floats,
    response: Integers,
    group: Integers,
    accepted: Flags,
    advantage: Floats,
    *,
    hessian_mode: str,
    hessian_source: str,
    scope: str,
    contrastive_agg: str,
    exclude_self_response: bool,
    leave_one_out: str,
    reg_lambda: float,
) -> Floats:
    """Score [T] of every token of one module, NaN where its group has no contrast.

    `gradients` [T, D]; `response` [T] points into the R rows of `group`, `accepted` and `advantage`.
    """
    dim = gradients.shape[1]
    summed = [gradients[response == r].sum(axis=0) for r in range(len(group))]
    renormalise = leave_one_out == "renorm" or (
        leave_one_out == "auto" and hessian_mode == "inverse" and contrastive_agg == "mean"
    )
    inverses: dict[tuple[int, ...], Floats] = {}
    scores = np.full(len(response), np.nan)
    for t, own in enumerate(response):
        members = [r for r in range(len(group)) if scope == "all_selected" or group[r] == group[own]]
        if not _has_contrast(members, accepted, advantage, contrastive_agg):
            continue
        direction = np.zeros(dim)
        for r in members:
            if exclude_self_response and r == own:
                continue
            left_out = own if exclude_self_response and renormalise else None
            direction += _weight(r, members, left_out, accepted, advantage, contrastive_agg) * summed[r]
        if hessian_mode == "inverse":
            if tuple(members) not in inverses:
                by_token = [g for g, r in zip(gradients, response, strict=True) if r in members]
                rows = by_token if hessian_source == "token" else [summed[r] for r in members]
                inverses[tuple(members)] = _damped_inverse(rows, dim, reg_lambda)
            direction = inverses[tuple(members)] @ direction
        scores[t] = gradients[t] @ direction
    return scores


def _has_contrast(members: list[int], accepted: Flags, advantage: Floats, agg: str) -> bool:
    sides = {bool(accepted[r]) for r in members}
    return sides == {True, False} and (agg != "advantage" or any(advantage[r] != 0 for r in members))


def _weight(r: int, members: list[int], left_out: int | None, accepted: Flags, advantage: Floats, agg: str) -> float:
    """Signed weight of response r; a mean counts its class without `left_out`."""
    if agg == "advantage":
        return float(advantage[r])
    sign = 1.0 if accepted[r] else -1.0
    if agg == "sum":
        return sign
    return sign / sum(1 for other in members if accepted[other] == accepted[r] and other != left_out)


def _damped_inverse(rows: list[Floats], dim: int, reg_lambda: float) -> Floats:
    hessian = np.zeros((dim, dim))
    for row in rows:
        hessian += np.outer(row, row)
    return np.linalg.inv(hessian + (reg_lambda if reg_lambda > 0 else 0.1 * np.trace(hessian) / dim) * np.eye(dim))
