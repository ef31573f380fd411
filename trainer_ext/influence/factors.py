"""What goes into a score: per-token factors of one linear module, and what is known of each response.

Both check themselves when built, so that the mathematics behind them need not: a wrong shape or a NaN gradient is an
error here, with the field's name, and never a silently wrong score. Checking for NaN waits for the device; whoever reads
many modules may count what is not finite without waiting, and look at all counts in the end (`NotFinite`).
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Self

import torch
from torch import Tensor

SIDES = ("inputs", "output_grads")


@dataclass(frozen=True, eq=False)
class NotFinite:
    """How many values of a tensor are not finite, counted on its device."""

    name: str
    total: int
    found: Tensor
    """int64 [2]: how many, and the first row with one."""

    @classmethod
    def of(cls, name: str, value: Tensor) -> Self:
        """Count, without waiting for the device."""
        wrong = ~torch.isfinite(value)
        if not value.numel():
            return cls(name, 0, torch.zeros(2, dtype=torch.int64, device=value.device))
        rows = wrong.reshape(len(value), -1).any(dim=1)
        return cls(name, value.numel(), torch.stack([wrong.sum(), rows.int().argmax()]))

    def refuse(self) -> None:
        """Look at the count.

        Raises:
            ValueError: there are some.
        """
        count, row = self.found.tolist()
        if count:
            raise ValueError(f"{self.name}: {count} of {self.total} values are not finite, the first in row {row}")


@dataclass(frozen=True, eq=False)
class ModuleFactors:
    """The gradient of every captured token for one linear module, as factors: g_t = 2^e_t output_grads[t] inputs[t]^T.

    Raises:
        ValueError: a wrong shape or dtype, different lengths or devices, or a value that is not finite.
    """

    inputs: Tensor
    """u, floating point [T, k_in]: projected module inputs."""
    output_grads: Tensor
    """v, floating point [T, k_out]: projected gradients of the output function by the module's output."""
    response: Tensor
    """int64 [T]: row of `Responses` that the token belongs to, in any order."""
    exponent: Tensor | None = None
    """e, int8 [T]: power of two that the two halves of a token were divided by together when they were rounded
    (`storage.py`); None: zero for all."""
    counted: InitVar[bool] = False
    """Whether the caller looks after values that are not finite; here nothing then waits for the device."""

    def __post_init__(self, counted: bool) -> None:
        for name in SIDES:
            _require_floating(f"ModuleFactors.{name}", getattr(self, name), dimensions=2)
            if not counted:
                NotFinite.of(f"ModuleFactors.{name}", getattr(self, name)).refuse()
        _require("ModuleFactors.response", self.response, torch.int64)
        lengths = {name: len(getattr(self, name)) for name in ("inputs", "output_grads", "response")}
        if self.exponent is not None:
            _require("ModuleFactors.exponent", self.exponent, torch.int8)
            lengths["exponent"] = len(self.exponent)
        if len(set(lengths.values())) > 1:
            raise ValueError(f"ModuleFactors: one row per token in each field, got {lengths}")
        if 0 in (self.k_in, self.k_out):
            raise ValueError(f"ModuleFactors: k_in and k_out must be positive, got {self.k_in} and {self.k_out}")
        fields = (self.inputs, self.output_grads, self.response, self.exponent)
        devices = {str(x.device) for x in fields if x is not None}
        if len(devices) > 1:
            raise ValueError(f"ModuleFactors: all fields on one device, got {sorted(devices)}")

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.response)

    @property
    def nbytes(self) -> int:
        """Of the rows; `response` is shared by all modules."""
        exponent = 0 if self.exponent is None else self.exponent.nbytes
        return self.inputs.nbytes + self.output_grads.nbytes + exponent

    @property
    def k_in(self) -> int:
        return self.inputs.shape[1]

    @property
    def k_out(self) -> int:
        return self.output_grads.shape[1]


@dataclass(frozen=True, eq=False)
class Responses:
    """The responses of a batch on this rank, one row each.

    Raises:
        ValueError: a wrong shape or dtype, different lengths, or an advantage that is not finite.
    """

    group: Tensor
    """int64 [R]: prompt that the response answers; any labels, equal within a prompt."""
    accepted: Tensor
    """bool [R]: on the accepted side of the contrast."""
    advantage: Tensor
    """floating point [R]: weight of the response with `contrastive_agg="advantage"`."""

    def __post_init__(self) -> None:
        _require("Responses.group", self.group, torch.int64)
        _require("Responses.accepted", self.accepted, torch.bool)
        _require_floating("Responses.advantage", self.advantage, dimensions=1)
        NotFinite.of("Responses.advantage", self.advantage).refuse()
        lengths = {name: len(getattr(self, name)) for name in ("group", "accepted", "advantage")}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Responses: one row per response in each field, got {lengths}")

    @property
    def count(self) -> int:
        """R."""
        return len(self.group)


def require_known_responses(factors: ModuleFactors, responses: Responses) -> None:
    """Refuse tokens of a response that does not exist.

    Raises:
        ValueError: an entry of `factors.response` outside [0, R).
    """
    if factors.tokens == 0:
        return
    low, high = (int(x) for x in torch.aminmax(factors.response))
    if low < 0 or high >= responses.count:
        raise ValueError(
            f"ModuleFactors.response: entries must be rows of Responses, in [0, {responses.count}), got [{low}, {high}]"
        )


def _require(name: str, value: Tensor, dtype: torch.dtype) -> None:
    if value.dim() != 1 or value.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} with 1 dimension, got {value.dtype} of shape {tuple(value.shape)}")


def _require_floating(name: str, value: Tensor, *, dimensions: int) -> None:
    if value.dim() != dimensions or not value.is_floating_point():
        raise ValueError(
            f"{name}: expected floating point with {dimensions} dimension(s), "
            f"got {value.dtype} of shape {tuple(value.shape)}"
        )
