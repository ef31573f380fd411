"""A language model of a few hundred weights, and files of directions, for tests."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from trainer_ext.vhack import Extracted, ModelIdentity, TokenPair

VOCABULARY, WIDTH = 12, 8


class SmallModel(nn.Module):
    """Two linear modules that take part, `up_proj` 16 x 8 and `down_proj` 8 x 16, and a head that does not."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Embedding(VOCABULARY, WIDTH)
            self.up_proj = nn.Linear(WIDTH, 2 * WIDTH, bias=False)
            self.down_proj = nn.Linear(2 * WIDTH, WIDTH, bias=False)
            self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        hidden = self.embed(input_ids)
        hidden = hidden + self.down_proj(torch.tanh(self.up_proj(hidden.cumsum(1))))
        return SimpleNamespace(logits=self.head(hidden))


def token_pairs(count: int, seed: int = 0) -> list[TokenPair]:
    """Hacks are of the tokens below 4, clean completions of those above; lengths differ."""
    draw = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int, length: int) -> Tensor:
        return torch.randint(low, high, (length,), generator=draw)

    return [
        TokenPair(tokens(0, VOCABULARY, 3), tokens(0, 4, 2 + n % 3), tokens(4, VOCABULARY, 4)) for n in range(count)
    ]


RANKS = {"a.q_proj": 6, "b.q_proj": 6, "c.down_proj": 9}
IDENTITY = ModelIdentity("tiny", "float32", "0123456789abcdef", RANKS)


def made_up(k: int = 4, seed: int = 0, scale: float = 1.0) -> Extracted:
    """Random orthonormal directions of the modules of `IDENTITY`, module c far stronger than a."""
    draw = torch.Generator().manual_seed(seed)
    v = {n: torch.linalg.qr(torch.randn(r, k, generator=draw))[0].T.contiguous() for n, r in RANKS.items()}
    strength = dict(zip(RANKS, (0.1, 1.0, 10.0), strict=True))
    s = {n: scale * strength[n] * torch.rand(k, generator=draw).sort(descending=True).values for n in RANKS}
    return Extracted(v, s, IDENTITY.basis, IDENTITY.dtype, ("q_proj", "down_proj"), 8, 0.0)
