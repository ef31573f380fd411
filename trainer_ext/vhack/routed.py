"""The part of training that mode route sets aside: weights in the removed directions, to be removed for deployment.

Training runs with the weights W + D^T a, deployment with W (gradient routing, arXiv:2410.04332). What the projection takes out
of the gradient is the gradient by a, which an AdamW of its own follows; what it takes out of a step is a step of a.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Routed:
    """`amounts` float64 [axes]: a, how far the weights lie along each direction because of what was routed."""

    def __init__(self, axes: int, device: torch.device) -> None:
        self.amounts = torch.zeros(axes, dtype=torch.float64, device=device, requires_grad=True)
        self._optimizer = torch.optim.AdamW([self.amounts], weight_decay=0.0)

    def follow_gradient(self, gradient: Tensor, like: dict[str, Any]) -> Tensor:
        """One step of AdamW, without decay; the change of a, [axes].

        Args:
            gradient: by a, [axes].
            like: a parameter group of the optimizer of the weights: its lr, betas and eps are used where it has them.
        """
        group = self._optimizer.param_groups[0]
        group.update({key: like[key] for key in ("lr", "betas", "eps") if key in like})
        before = self.amounts.detach().clone()
        self.amounts.grad = gradient.to(self.amounts)
        self._optimizer.step()
        return self.amounts.detach() - before

    def follow_step(self, step: Tensor) -> None:
        """Take a step [axes] that the weights have made already."""
        with torch.no_grad():
            self.amounts += step.to(self.amounts)

    def state_dict(self) -> dict[str, Any]:
        return {"amounts": self.amounts.detach().clone(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Raises:
            ValueError: a state of another number of directions.
        """
        if state["amounts"].shape != self.amounts.shape:
            raise ValueError(
                f"routed weights of {len(state['amounts'])} directions cannot go on with {len(self.amounts)}: resume with the "
                "directions, k and drop_bottom_frac that the checkpoint was made with"
            )
        with torch.no_grad():
            self.amounts.copy_(state["amounts"])
        self._optimizer.load_state_dict(state["optimizer"])
