"""Batched sampling from a causal language model of transformers, with the log-probability of every sampled token.

Pure torch: no verl, no Ray. What a request samples depends on its prompt, its seed and the weights, and not on which other
requests share its batch: each draws from a generator of its own. Sharing a batch still changes the last bits of the logits, as
more rows do in any matrix product; so a draw is a race of exponentials, where they decide a dead heat alone. (Inverting the
cumulative distribution is worse: noise of 2e-6 in the logits changed 3 of 2,000 draws among 49,152 tokens, and none of a race.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Request:
    """One prompt and how to continue it."""

    prompt: Sequence[int]
    max_tokens: int
    seed: int
    """In [0, 2^63): of the request's own generator."""
    temperature: float = 1.0
    """0 takes the most likely token."""
    top_k: int = -1
    """Sample among the k most likely tokens; -1: all."""
    top_p: float = 1.0
    """Sample among the fewest tokens whose probabilities reach p."""


@dataclass(frozen=True)
class Sample:
    """A continuation; the token that ended it, if one did, is its last."""

    token_ids: list[int]
    log_probs: list[float]
    """Of each token under softmax(logits / temperature), before top_k and top_p: what the trainer computes for its own."""


def log_softmax_at(logits: Tensor, temperature: Tensor) -> Tensor:
    """log softmax(logits / temperature) in float32, [B, V]; temperature [B], where 0 counts as 1."""
    scale = torch.where(temperature > 0, temperature, torch.ones_like(temperature))
    return torch.log_softmax(logits.float() / scale[:, None], dim=-1)


def restrict(probabilities: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Zero what top_k and top_p rule out; [B, V], not renormalised. Ties at the border are decided by the sort."""
    vocabulary = probabilities.shape[-1]
    if bool(((top_k <= 0) | (top_k >= vocabulary)).all()) and bool((top_p >= 1).all()):
        return probabilities
    ordered, order = probabilities.sort(dim=-1, descending=True)
    rank = torch.arange(vocabulary, device=probabilities.device)
    limit = torch.where(top_k > 0, top_k, torch.full_like(top_k, vocabulary))
    before = ordered.cumsum(dim=-1) - ordered  # probability of all likelier tokens: the first is always kept
    keep = (rank[None] < limit[:, None]) & (before < top_p[:, None])
    return torch.zeros_like(probabilities).scatter(-1, order, ordered * keep)


def draw(probabilities: Tensor, race: Tensor) -> Tensor:
    """Sample by racing: token i arrives after race_i / p_i, the first wins with probability p_i / sum p.

    Args:
        probabilities: [B, V], need not sum to 1; a token of probability 0 is never drawn.
        race: float64 [B, V], independent, exponential of mean 1, above zero. A float32 has too few digits near zero: with a
            vocabulary of 10^5, in every hundredth draw some token without a chance would come in first.

    Returns:
        int64 [B].
    """
    return (probabilities / race).argmax(dim=-1)


def _left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask, int64 [B, L] each."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids.to(device), mask.to(device)


def _per_request(requests: Sequence[Request], field: str, device: torch.device) -> Tensor:
    return torch.tensor([getattr(request, field) for request in requests], device=device)


@torch.inference_mode()
def sample_batch(model: Any, requests: Sequence[Request], *, eos: frozenset[int], pad: int) -> list[Sample]:
    """Continue every prompt until an end token or its limit.

    `model` is a causal LM of transformers in eval mode; the batch runs on its device. A request of no tokens, or an empty
    prompt, is the caller's to avoid.
    """
    device = next(model.parameters()).device
    tokens, mask = _left_padded([request.prompt for request in requests], pad, device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    temperature, top_p = (_per_request(requests, field, device).float() for field in ("temperature", "top_p"))
    top_k = _per_request(requests, "top_k", device)
    generators = [torch.Generator(device).manual_seed(request.seed) for request in requests]
    race: Tensor | None = None
    samples = [Sample([], []) for _ in requests]
    active = list(range(len(requests)))
    cache = None
    while active:
        output = model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        log_probs = log_softmax_at(output.logits[:, -1], temperature)
        race = torch.ones_like(log_probs, dtype=torch.float64) if race is None else race
        for row in active:
            race[row].exponential_(generator=generators[row])
        drawn = draw(restrict(log_probs.exp(), top_k, top_p), race)
        chosen = torch.where(temperature > 0, drawn, log_probs.argmax(dim=-1))
        chosen_log_probs = log_probs.gather(-1, chosen[:, None]).squeeze(-1).tolist()
        ids = chosen.tolist()
        for row in active:
            samples[row].token_ids.append(ids[row])
            samples[row].log_probs.append(chosen_log_probs[row])
        active = [
            row for row in active if ids[row] not in eos and len(samples[row].token_ids) < requests[row].max_tokens
        ]
        tokens, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(requests), 1)], dim=1)
    return samples
