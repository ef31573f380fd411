"""What the influence trace needs to know of each response in a verl batch, and where its tokens are in a model's pass.

Pure functions on verl's jagged tensors, used by the driver and by every rank, so that both mean the same by "accepted".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer_ext.influence import InfluenceConfig, Responses, leading_tokens
from trainer_ext.influence.contrast import group_members, response_weights
from trainer_ext.verl_plugin.capture_mode import without_weight


def acceptance(rewards: Tensor, extra_fields: Sequence[Mapping[str, Any]], threshold: float) -> Tensor:
    """bool [R]: the reward function's own `acc` where it gives one, else whether the outcome reward exceeds the threshold.

    Args:
        rewards: [R], the sum of a response's token rewards.
        extra_fields: verl's per-response dictionaries; `reward_extra_info` in them holds what the reward function returned.
    """
    verdicts = [
        float((extra.get("reward_extra_info") or {}).get("acc", reward))
        for extra, reward in zip(extra_fields, rewards.tolist(), strict=True)
    ]
    return torch.tensor([verdict > threshold for verdict in verdicts], dtype=torch.bool)


def group_numbers(uids: Sequence[str]) -> Tensor:
    """int64 [R]: responses of one prompt share a number."""
    numbers = {uid: number for number, uid in enumerate(dict.fromkeys(uids))}
    return torch.tensor([numbers[uid] for uid in uids], dtype=torch.int64)


def first_tokens(values: Tensor) -> Tensor:
    """[R], the first entry of every row of a jagged tensor: GRPO gives all tokens of a response the same advantage."""
    return values.values()[values.offsets()[:-1]]


def row_numbers(response_mask: Tensor) -> Tensor:
    """int64 [B]: 0, 1, 2, ... over the real responses of a batch, -1 at rows that verl added as padding.

    Args:
        response_mask: jagged [B, n], nonzero where the model wrote the token.
    """
    real = torch.tensor([bool(row.any()) for row in response_mask.unbind()], dtype=torch.bool)
    return torch.where(real, real.cumsum(0) - 1, -1)


def per_response(
    values: Tensor, response: Tensor, token: Tensor, rows: Tensor, lengths: Sequence[int], empty: Any
) -> Tensor:
    """Values of captured tokens as a jagged [B, n] over the batch, `empty` where no token was captured.

    Args:
        values: [T].
        response, token: int64 [T], the number of the token's response and its index in it.
        rows: int64 [B], the number of each row's response, or -1 (`row_numbers`).
        lengths: response tokens of each row.
    """
    flat = torch.full((sum(lengths),), empty, dtype=values.dtype)
    starts = torch.tensor([0, *lengths[:-1]], dtype=torch.int64).cumsum(0)
    flat[starts[rows >= 0][response] + token] = values
    offsets = torch.tensor([0, *lengths], dtype=torch.int64).cumsum(0)
    return torch.nested.nested_tensor_from_jagged(flat, offsets)


def contrasted(responses: Responses, config: InfluenceConfig) -> Tensor:
    """bool [R]: whether the response's group holds a contrast, that is, whether its tokens get scores."""
    result = torch.zeros(responses.count, dtype=torch.bool)
    for members in group_members(responses.group, config):
        weights = response_weights(responses.accepted[members], responses.advantage[members], config)
        result[members] = weights is not None
    return result


def weightless_in_contrast(responses: Responses, config: InfluenceConfig) -> Tensor:
    """bool [R]: responses without an advantage that have part in a contrast nevertheless.

    With scope `global` any response has: this rank does not know whether the others hold both kinds.
    """
    weightless = without_weight(responses.advantage)
    return weightless if config.scope == "global" else weightless & contrasted(responses, config)


def leading_response_tokens(response_mask: Tensor, max_tokens: int) -> list[Tensor]:
    """Per response, int64 indices of the tokens to score: the first `max_tokens` that the model itself wrote, or all (-1).

    Args:
        response_mask: jagged [R, n], nonzero where the model wrote the token (tools write others).
    """
    response, token = leading_tokens(response_mask.to_padded_tensor(0).bool(), max_tokens)
    return list(token.split(response.bincount(minlength=response_mask.size(0)).tolist()))


def predicting_positions(lengths: Tensor, response_lengths: Tensor, tokens: Sequence[Tensor], packed: bool) -> Tensor:
    """int64 [T]: where each chosen response token is predicted, in the flattened tokens of one forward pass.

    The position that predicts response token t is the one before it.

    Args:
        lengths, response_lengths: int64 [B], tokens of the whole sequence, and of the response at its end.
        tokens: per sequence, indices of the chosen response tokens.
        packed: sequences lie end to end without padding; else each is right-padded to the longest.
    """
    starts = lengths.cumsum(0) - lengths if packed else torch.arange(len(lengths)) * lengths.max()
    first = starts + lengths - response_lengths - 1
    return torch.cat([offset + chosen for offset, chosen in zip(first, tokens, strict=True)])
