"""A two-layer decoder shaped like Qwen2 (grouped-query attention, gated MLP, RMSNorm), for capture tests.

Takes padded [B, L] tokens, or one packed row with the position of each token in its own sequence.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

HIDDEN, HEADS, KV_HEADS, INTERMEDIATE, VOCABULARY = 16, 4, 2, 24, 29


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        head = HIDDEN // HEADS
        self.q_proj = nn.Linear(HIDDEN, HIDDEN)
        self.k_proj = nn.Linear(HIDDEN, KV_HEADS * head)
        self.v_proj = nn.Linear(HIDDEN, KV_HEADS * head)
        self.o_proj = nn.Linear(HIDDEN, HIDDEN, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (-1, HIDDEN // HEADS)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return self.o_proj(attended.transpose(1, 2).flatten(2))


class _MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(HIDDEN, INTERMEDIATE, bias=False)
        self.up_proj = nn.Linear(HIDDEN, INTERMEDIATE, bias=False)
        self.down_proj = nn.Linear(INTERMEDIATE, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)  # these three modules see [B * L, d]
        hidden = functional.silu(self.gate_proj(tokens)) * self.up_proj(tokens)
        return self.down_proj(hidden).unflatten(0, x.shape[:2])


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = _Attention(), _MLP()
        self.input_norm, self.post_norm = nn.RMSNorm(HIDDEN), nn.RMSNorm(HIDDEN)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_norm(x), mask)
        return x + self.mlp(self.post_norm(x))


class TinyDecoder(nn.Module):
    """Float64, random weights; `checkpointing` is None, or the `use_reentrant` of activation checkpointing."""

    def __init__(self, seed: int = 0, checkpointing: bool | None = None) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.checkpointing = checkpointing
        self.embed_tokens = nn.Embedding(VOCABULARY, HIDDEN)
        self.embed_positions = nn.Embedding(64, HIDDEN)
        self.layers = nn.ModuleList([_Layer(), _Layer()])
        self.lm_head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
        self.double()

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """Logits [B, L, V] of tokens [B, L]."""
        if positions is None:
            positions = torch.arange(tokens.shape[1]).expand_as(tokens)
        sequence = (positions == 0).cumsum(dim=1)
        causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).tril()
        mask = (causal & (sequence[:, :, None] == sequence[:, None, :]))[:, None]
        x = self.embed_tokens(tokens) + self.embed_positions(positions)
        for layer in self.layers:
            if self.checkpointing is None:
                x = layer(x, mask)
            else:
                x = checkpoint(layer, x, mask, use_reentrant=self.checkpointing)
        return self.lm_head(x)


def log_prob_sum(logits: Tensor, tokens: Tensor) -> Tensor:
    """Sum of log-probabilities of each row's tokens after the first, given logits [B, L, V] and tokens [B, L]."""
    return functional.log_softmax(logits[:, :-1], dim=-1).gather(-1, tokens[:, 1:, None]).sum()
