"""Model to scores: capture and scoring together against brute force on gradients that autograd gives by itself."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.trainer_ext.influence.tiny_decoder import VOCABULARY, TinyDecoder, log_prob_sum
from tests.truth.brute_force import token_influence
from trainer_ext.influence import (
    InfluenceConfig,
    LinearCapture,
    Responses,
    leading_tokens,
    score_batch,
    target_modules,
)

PROMPT, RESPONSE = 3, 5
GROUP = torch.tensor([0, 0, 1, 1])
ACCEPTED = torch.tensor([True, False, False, True])
ADVANTAGE = torch.tensor([1.0, -1.0, -0.5, 0.5], dtype=torch.float64)
LENGTHS = torch.tensor([5, 3, 1, 4])
TOKENS = torch.randint(VOCABULARY, (4, PROMPT + RESPONSE), generator=torch.Generator().manual_seed(1))


class _OwnWeightPerToken(nn.Module):
    """A linear layer with one copy of its weight for every token: the gradient of a copy is that of its token."""

    def __init__(self, linear: nn.Linear, tokens: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(linear.weight.detach().expand(tokens, -1, -1).clone())
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.einsum("tba,ta->tb", self.weights, x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)
        return flat if self.bias is None else flat + self.bias


@cache
def _true_gradients(name: str) -> Tensor:
    """d log-probability / d W of one module, by token: [B * L, out, in]."""
    model = TinyDecoder()
    parent, _, leaf = name.rpartition(".")
    probe = _OwnWeightPerToken(model.get_submodule(name), TOKENS.numel())  # type: ignore[arg-type]
    setattr(model.get_submodule(parent), leaf, probe)
    log_prob_sum(model(TOKENS), TOKENS).backward()
    assert probe.weights.grad is not None
    return probe.weights.grad


def _captured_scores(config: InfluenceConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the first tokens of each response, in two micro-batches, and the (response, flat position) of each."""
    model = TinyDecoder(checkpointing=False)
    mask = torch.arange(RESPONSE) < LENGTHS[:, None]
    response, token = leading_tokens(mask, config.max_tokens_per_response)
    positions = response * TOKENS.shape[1] + PROMPT - 1 + token
    with LinearCapture(model, config) as capture:
        for first in (0, 2):
            mine = (response >= first) & (response < first + 2)
            capture.select(positions[mine] - first * TOKENS.shape[1], response[mine])
            tokens = TOKENS[first : first + 2]
            log_prob_sum(model(tokens), tokens).backward()
        modules = capture.pop()
    result = score_batch(modules, Responses(group=GROUP, accepted=ACCEPTED, advantage=ADVANTAGE), config)
    return result.scores, response, positions


OPTIONS: list[dict[str, Any]] = [
    {"hessian_mode": "identity", "contrastive_agg": "sum"},
    {"hessian_mode": "identity", "scope": "all_selected", "exclude_self_response": True, "max_tokens_per_response": 2},
    {"exclude_self_response": True, "scope": "all_selected"},
    {"contrastive_agg": "advantage", "max_hessian_dim": 12},
    {
        "hessian_source": "response",
        "exclude_self_response": True,
        "scope": "all_selected",
        "max_tokens_per_response": 3,
    },
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(str(value) for value in options.values()))
def test_scores_of_a_model_equal_brute_force_on_autograd(options: dict[str, Any]) -> None:
    config = InfluenceConfig(projection_dim_factor=4, precision="fp64", seed=3, **options)
    scores, response, positions = _captured_scores(config)
    model = TinyDecoder()
    projections = LinearCapture(model, config).projections

    expected = np.zeros(len(scores))
    for name, module in target_modules(model, config).items():
        p_in, p_out = (p(torch.eye(p.dim, dtype=torch.float64)) for p in projections[name])
        gradients = _true_gradients(name)[positions]
        assert gradients.shape[1:] == module.weight.shape
        expected += token_influence(
            (p_out.T @ gradients @ p_in).flatten(1).numpy(),
            response.numpy(),
            GROUP.numpy(),
            ACCEPTED.numpy(),
            ADVANTAGE.numpy(),
            hessian_mode=config.hessian_mode,
            hessian_source=config.hessian_source,
            scope=config.scope,
            contrastive_agg=config.contrastive_agg,
            exclude_self_response=config.exclude_self_response,
            leave_one_out=config.leave_one_out,
            reg_lambda=config.reg_lambda,
        )

    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
