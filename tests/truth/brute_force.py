"""Influence scores and similarities by the definition, in float64 numpy, with every Hessian materialised and inverted.

The oracle of the influence tests. It shares no code and no shortcut with `trainer_ext.influence`, not even torch: plain
loops over tokens and responses, explicit inverses, leave-one-out weights counted anew for each response.
Small D only.

Symbols
    g_t, g_r    gradient of a token, and of a response: the sum over its tokens; D entries
    H           sum of g g^T over the tokens (or responses) of a group, plus lambda I
    H_-r        the same without the own rows of response r, with the lambda of the whole group
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


def outer_products(inputs: Floats, output_grads: Floats) -> Floats:
    """Token gradients v_t u_t^T, flattened to [T, k_out * k_in], from factors u [T, k_in] and v [T, k_out]."""
    gradients = [np.outer(v, u).ravel() for u, v in zip(inputs, output_grads, strict=True)]
    return np.array(gradients).reshape(len(gradients), inputs.shape[1] * output_grads.shape[1])


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
    true_loo: bool = False,
    token_unit_norm: bool = False,
) -> Floats:
    """Score [T] of every token of one module, NaN where its group has no contrast.

    `gradients` [T, D]; `response` [T] points into the R rows of `group`, `accepted` and `advantage`. `scope` "global"
    is "all_selected": the oracle knows one rank.
    """
    if token_unit_norm and hessian_mode == "identity":
        gradients = np.array([_unit(g) for g in gradients]).reshape(gradients.shape)
    summed = _summed(gradients, response, len(group))
    renormalise = leave_one_out == "renorm" or (
        leave_one_out == "auto" and hessian_mode == "inverse" and contrastive_agg == "mean"
    )
    scores = np.full(len(response), np.nan)
    inverses: dict[tuple[int | None, ...], Floats] = {}

    def inverse(members: list[int], left_out: int | None) -> Floats:
        key = (left_out, *members)
        if key not in inverses:
            inverses[key] = inverse_hessian(gradients, response, members, hessian_source, reg_lambda, left_out)
        return inverses[key]

    for own in range(len(group)):
        members = _members(own, group, scope)
        if not _has_contrast(members, accepted, advantage, contrastive_agg):
            continue
        direction = np.zeros(gradients.shape[1])
        for r in members:
            if exclude_self_response and r == own:
                continue
            left_out = own if exclude_self_response and renormalise else None
            direction += _weight(r, members, left_out, accepted, advantage, contrastive_agg) * summed[r]
        if hessian_mode == "inverse":
            direction = inverse(members, own if true_loo else None) @ direction
        for t in np.flatnonzero(response == own):
            scores[t] = gradients[t] @ direction
            if token_unit_norm and hessian_mode == "inverse":
                length = np.sqrt(gradients[t] @ inverse(members, None) @ gradients[t])
                scores[t] = scores[t] / length if length > 0 else 0.0
    return scores


def inverse_hessian(
    gradients: Floats,
    response: Integers,
    members: list[int],
    source: str,
    reg_lambda: float,
    left_out: int | None = None,
) -> Floats:
    """H^-1 [D, D] of the responses `members`, or H_-r^-1 with r = `left_out`.

    Where every gradient is zero and so is lambda there is nothing to invert, and whatever H^-1 is multiplied with is
    zero too: zeros.
    """
    dim = gradients.shape[1]
    hessian, trace = np.zeros((dim, dim)), 0.0
    for r in members:
        own = [gradients[t] for t in np.flatnonzero(response == r)]
        for row in own if source == "token" else [np.sum(own, axis=0) if own else np.zeros(dim)]:
            trace += float(row @ row)
            if r != left_out:
                hessian += np.outer(row, row)
    damping = reg_lambda if reg_lambda > 0 else 0.1 * trace / dim
    return np.linalg.inv(hessian + damping * np.eye(dim)) if damping > 0 else np.zeros((dim, dim))


def response_dots(
    gradients: Floats, response: Integers, group: Integers, *, hessian_source: str, scope: str, reg_lambda: float
) -> tuple[Floats, Floats]:
    """g_r . g_q and g_r^T H^-1 g_q of one module, [R, R] each; the second is NaN between groups, zero within a group
    without tokens."""
    count = len(group)
    summed = _summed(gradients, response, count)
    raw, preconditioned = np.empty((count, count)), np.full((count, count), np.nan)
    for r in range(count):
        members = _members(r, group, scope)
        inverse = inverse_hessian(gradients, response, members, hessian_source, reg_lambda)
        for q in range(count):
            raw[r, q] = summed[r] @ summed[q]
            if q in members:
                preconditioned[r, q] = summed[r] @ inverse @ summed[q]
    return raw, preconditioned


@dataclass(frozen=True)
class PairSummary:
    """What one class of pairs has in common; NaN where there is nothing to take a mean of."""

    mean: float
    cosine: float
    self_dot: float
    pairs: int


def pair_summary(dots: Floats, group: Integers, accepted: Flags, *, within_prompts: bool, pair: str) -> PairSummary:
    """Mean dot over the unordered pairs of different responses of the classes `pair` ("acc-rej"), mean cosine over those
    of them that both have a gradient, and the mean self-dot of the class where it is one class ("acc-acc")."""
    wanted = sorted(pair.split("-"))
    label = ["acc" if flag else "rej" for flag in accepted]
    values, cosines = [], []
    for r in range(len(group)):
        for q in range(r + 1, len(group)):
            if sorted((label[r], label[q])) == wanted and (group[r] == group[q] or not within_prompts):
                values.append(dots[r, q])
                if dots[r, r] > 0 and dots[q, q] > 0:
                    cosines.append(dots[r, q] / np.sqrt(dots[r, r] * dots[q, q]))
    own = [dots[r, r] for r in range(len(group)) if wanted == [label[r]] * 2]
    return PairSummary(_mean(values), _mean(cosines), _mean(own), len(values))


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _unit(gradient: Floats) -> Floats:
    length = np.sqrt(gradient @ gradient)
    return gradient / length if length > 0 else gradient


def _summed(gradients: Floats, response: Integers, count: int) -> list[Floats]:
    return [gradients[response == r].sum(axis=0) for r in range(count)]


def _members(own: int, group: Integers, scope: str) -> list[int]:
    return [r for r in range(len(group)) if scope != "per_prompt" or group[r] == group[own]]


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
