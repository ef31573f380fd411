"""A float32 operand as the sum of two float16 numbers under one power of two, so that the tensor cores keep 21 bits.

x = 2^power (high + low),   |high| <= 1,   |x - 2^power (high + low)| <= 2^-22 max |x|
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """The two halves, shaped as what was split, and their power."""

    high: Tensor
    low: Tensor
    power: Tensor
    """int32, shaped as the operand with the dimensions of the maximum kept at length one."""


def split(values: Tensor, dim: tuple[int, ...]) -> Split:
    """Split floating point values; one power for all entries along `dim`."""
    _, power = torch.frexp(values.abs().amax(dim=dim, keepdim=True))
    scaled = times_power(values, -power).float()
    high = scaled.half()
    return Split(high, (scaled - high.float()).half(), power)


def times_power(values: Tensor, power: Tensor | int) -> Tensor:
    """2^power values, in their type; exact unless it leaves the type's range. (torch.ldexp takes its powers in
    float32 whatever the type of the values.)"""
    if isinstance(power, int):
        return values * 2.0**power
    return values * torch.exp2(power.to(values.dtype))
