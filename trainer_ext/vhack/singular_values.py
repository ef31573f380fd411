"""Trains singular values alone: the adapter y += U (a * Vh x) that directions are written for, without an adapter's modules.

The gradient by a is diag(U^T G Vh^T), of the gradient G by the weight that a backward pass gives anyway. So an AdamW on a,
whose steps go into the weights as U diag(da) Vh, trains exactly what an adapter with frozen weights would, and forward passes,
weight transfers and checkpoints see plain weights. Everything else (embeddings, norms, heads) stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainer_ext.vhack.basis import svd_basis
from trainer_ext.vhack.sharding import SumOverShards, local, shard_like, whole
from trainer_ext.vhack.stepping import stepping_by


@dataclass(frozen=True, eq=False)
class _Sides:
    """This rank's rows of U, float32 [rows, r], and Vh, float32 [r, in]."""

    u: Tensor
    vh: Tensor


class SingularValues:
    """An AdamW on the singular values of weights, in the place of their optimizer's step.

    All ranks that hold shards must construct and step it together.

    Args:
        weights: by module [out, in], with the values whose SVD the basis is.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter]) -> None:
        self._weights = dict(weights)
        self._reduce = SumOverShards(self._weights.values())
        self._sides, self.amounts = {}, {}
        for name, weight in self._weights.items():
            basis = svd_basis(whole(weight.detach()))
            self._sides[name] = _Sides(_rows_like(basis.u, weight), basis.vh.float())
            self.amounts[name] = nn.Parameter(torch.zeros(len(basis.vh), dtype=torch.float32, device=basis.vh.device))
        self.optimizer = torch.optim.AdamW(self.amounts.values(), weight_decay=0.0)

    def instead_of(self, optimizer: torch.optim.Optimizer) -> AbstractContextManager[None]:
        """While open, `optimizer.step` moves singular values and nothing else."""

        def step(*_args: Any, **_kwargs: Any) -> None:
            optimizer._opt_called = True  # type: ignore[attr-defined]  # else a scheduler warns that no step was made
            self.step(optimizer.param_groups[0])

        return stepping_by(optimizer, step)

    @torch.no_grad()
    def step(self, like: Mapping[str, Any]) -> None:
        """One step along the gradients that the weights have.

        Args:
            like: a parameter group of the weights' optimizer: its lr, betas and eps are used where it has them.
        """
        self.optimizer.param_groups[0].update({key: like[key] for key in ("lr", "betas", "eps") if key in like})
        for amounts, gradient in zip(self.amounts.values(), self._gradients(), strict=True):
            amounts.grad = gradient
        before = {name: amounts.clone() for name, amounts in self.amounts.items()}
        self.optimizer.step()
        for name, weight in self._weights.items():
            sides, change = self._sides[name], self.amounts[name] - before[name]
            local(weight.data).addmm_((sides.u * change).to(weight.dtype), sides.vh.to(weight.dtype))

    def state_dict(self) -> dict[str, Any]:
        return {
            "amounts": {name: amounts.detach().clone() for name, amounts in self.amounts.items()},
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """
        Raises:
            ValueError: a state of other modules.
        """
        if list(state["amounts"]) != list(self.amounts):
            raise ValueError("the checkpoint's singular values are those of other modules")
        with torch.no_grad():
            for name, amounts in self.amounts.items():
                amounts.copy_(state["amounts"][name])
        self.optimizer.load_state_dict(state["optimizer"])

    def _gradients(self) -> tuple[Tensor, ...]:
        """By singular values, [r] a module, of all ranks' shards together."""
        found = []
        for name, weight in self._weights.items():
            sides = self._sides[name]
            if weight.grad is None:
                found.append(torch.zeros_like(self.amounts[name]))
                continue
            gradient = local(weight.grad).to(sides.vh.dtype)
            found.append((sides.u * (gradient @ sides.vh.T)).sum(dim=0))
        packed = torch.cat(found)
        self._reduce(packed)
        return packed.split([len(amounts) for amounts in self.amounts.values()])


def _rows_like(u: Tensor, weight: Tensor) -> Tensor:
    """The rows of U [out, r] that belong to this rank's rows of the weight [out, in], float32."""
    rows = local(weight).shape[0]
    if rows == len(u):
        return u.float()
    numbers = torch.arange(len(u), dtype=torch.float64, device=u.device)[:, None].expand(-1, weight.shape[1])
    return u[shard_like(numbers.contiguous(), weight)[:, 0].long()].float()
