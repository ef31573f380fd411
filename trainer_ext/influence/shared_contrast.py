"""One contrast over the responses of all ranks, as a rank needs it for its own.

Symbols
    R, R_k      responses of all ranks, and of rank k; numbered rank by rank
    Omega       [n, R] as in `contrast.py`; n = R where the own response is excluded, else 1
    s_q         signed weight of response q
    S_kc        sum of s_q g_q over the responses of rank k and class c (accepted, rejected)   [D]

Formulas
    d_r         sum over own q of Omega_rq g_q  +  sum over other ranks k and classes c of a_rc S_kc
    a_rc        Omega_rq / s_q, the same for all q of class c but r itself

Two sums a rank thus say all that the others need to know. Own terms are never added and then taken out again, which
would leave nothing exact of a direction beside a large own gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.contrast import contrast_matrix, response_weights

CLASSES = (True, False)
"""Of `accepted`."""


@dataclass(frozen=True, eq=False)
class SharedContrast:
    """What a rank knows of the responses of all ranks."""

    omega: Tensor
    """Omega, float64 [n, R]."""
    counts: tuple[int, ...]
    """R_k."""
    rank: int
    by_class: Tensor
    """float64 [2, R_k] of this rank: s_q where q is of the class, else 0."""
    others: Tensor
    """a, float64 [n_k, 2], n_k = R_k or 1."""

    @classmethod
    def of(
        cls,
        accepted: Sequence[Tensor],
        advantage: Sequence[Tensor],
        rank: int,
        config: InfluenceConfig,
        device: torch.device,
    ) -> SharedContrast | None:
        """The contrast of rank `rank`, or None where there is none.

        Args:
            accepted, advantage: bool and floating point [R_k] of each rank.
        """
        counts = tuple(len(flags) for flags in accepted)
        flags = torch.cat(list(accepted)).cpu()
        weights = response_weights(flags, torch.cat(list(advantage)).cpu(), config)
        if weights is None:
            return None
        omega = contrast_matrix(weights, flags, config)
        own = _places(counts)[rank]
        mine = omega[own] if len(omega) > 1 else omega
        by_class = torch.stack([torch.where(flags[own] == label, weights[own], 0.0) for label in CLASSES])
        others = torch.stack([_ratios(mine, weights, flags == label, own) for label in CLASSES], dim=1)
        return cls(omega.to(device), counts, rank, by_class.to(device), others.to(device))

    @property
    def own(self) -> slice:
        """This rank's responses among all."""
        return _places(self.counts)[self.rank]

    @property
    def excludes(self) -> bool:
        """Whether each response has a direction of its own."""
        return len(self.omega) > 1

    @property
    def own_omega(self) -> Tensor:
        """float64 [n_k, R_k]: the own responses' weights in the own directions."""
        return (self.omega[self.own] if self.excludes else self.omega)[:, self.own]

    def sums(self, gradients: Tensor) -> Tensor:
        """S_kc of this rank, float64 [2, D], from its g [R_k, D]."""
        return self.by_class @ gradients

    def directions(self, gradients: Tensor, sums: Tensor) -> Tensor:
        """d of this rank's responses, float64 [n_k, D], from its g and all ranks' S [ranks, 2, D]."""
        rest = torch.cat([sums[: self.rank], sums[self.rank + 1 :]]).sum(dim=0)
        return self.own_omega @ gradients + self.others @ rest


def _places(counts: Sequence[int]) -> list[slice]:
    return [slice(*ends) for ends in pairwise(accumulate(counts, initial=0))]


def _ratios(omega: Tensor, weights: Tensor, members: Tensor, own: slice) -> Tensor:
    """a_rc [n_k] of one class; 0 where no other rank has a response of weight in it."""
    elsewhere = torch.where(members, weights.abs(), 0.0)
    elsewhere[own] = 0
    heaviest = int(elsewhere.argmax())
    if elsewhere[heaviest] == 0:
        return omega.new_zeros(len(omega))
    return omega[:, heaviest] / weights[heaviest]
