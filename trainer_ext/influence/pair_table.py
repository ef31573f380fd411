"""Dots of response gradients by class of pairs: both accepted, both rejected, or one of each; within prompts and over all.

Several ranks' responses make one table. Dots between responses of different ranks are not known; those pairs are in no class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from trainer_ext.influence.factors import Responses

Matrix = Literal["RAW_DOT", "HINV_DOT", "PROJECTED", "UNPROJECTED"]
Scope = Literal["PER_PROMPT", "ALL_PROMPT"]
Pair = Literal["acc-acc", "rej-rej", "acc-rej"]


@dataclass(frozen=True)
class SimilarityRow:
    """Unordered pairs of different responses of one class, summarised. NaN where there is nothing to take a mean of,
    and where a pair of the class has no dot."""

    matrix: Matrix
    scope: Scope
    """Pairs within prompts, or all pairs."""
    pair: Pair
    """Both accepted, both rejected, or one of each."""
    mean: float
    """Of the dots."""
    cosine: float
    """Mean of dot / sqrt(self self'), over pairs of responses that both have a gradient."""
    self_dot: float
    """Mean of the dots of the class's responses with themselves; NaN for acc-rej."""
    pairs: int


@dataclass(frozen=True, eq=False)
class ComparedResponses:
    """R responses whose gradients were compared; on the CPU."""

    group: Tensor
    """int64 [R]: responses of one prompt share a number."""
    accepted: Tensor
    """bool [R]."""
    rank: Tensor
    """int64 [R]: responses of one rank share a number."""

    @classmethod
    def of(cls, responses: Responses) -> Self:
        """The responses of one rank."""
        group = responses.group.cpu()
        return cls(group, responses.accepted.cpu(), torch.zeros_like(group))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The responses of several ranks, in order. Prompts of different ranks are different ones, whatever their numbers."""
        groups, first = [], 0
        for part in parts:
            _, number = part.group.unique(return_inverse=True)
            groups.append(number + first)
            first += int(number.max()) + 1 if len(number) else 0
        rank = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part.group) for part in parts]))
        return cls(torch.cat(groups), torch.cat([part.accepted for part in parts]), rank)

    def pairs(self) -> Tensor:
        """bool [R, R]: unordered pairs of different responses of one rank, each once."""
        return (self.rank[:, None] == self.rank[None, :]).triu(diagonal=1)

    def rows(self, matrix: Matrix, dots: Tensor) -> list[SimilarityRow]:
        """Six rows: each class of pairs, within prompts and over all.

        Args:
            dots: float64 [R, R]; entries between ranks are not looked at.
        """
        different = self.pairs()
        scopes: dict[Scope, Tensor] = {
            "PER_PROMPT": different & (self.group[:, None] == self.group[None, :]),
            "ALL_PROMPT": different,
        }
        both = self.accepted[:, None] & self.accepted[None, :]
        neither = ~self.accepted[:, None] & ~self.accepted[None, :]
        classes: dict[Pair, Tensor] = {"acc-acc": both, "rej-rej": neither, "acc-rej": ~(both | neither)}
        own = dots.diagonal()
        length = own.clamp(min=0).sqrt()
        lengths = length[:, None] * length[None, :]
        cosines = dots / lengths
        rows = []
        for scope, inside in scopes.items():
            for pair, kind in classes.items():
                at = inside & kind
                directed = at & ((lengths > 0) | dots.isnan())  # without a dot there is no mean either
                mean, cosine = float(dots[at].mean()), float(cosines[directed].mean())
                self_dot = float(own[kind.diagonal()].mean())
                rows.append(SimilarityRow(matrix, scope, pair, mean, cosine, self_dot, int(at.sum())))
        return rows
