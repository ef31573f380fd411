"""Factors of one module in working order, on the device and in the types of the computation.

With `fast`, rows are float16 with powers of two, and the largest power of the module is taken out as a common unit: the
computation then sees no number above 2 and no power above zero. Inverse scores do not change with the unit, a given
damping is divided by its square, identity scores are multiplied by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.factors import ModuleFactors
from trainer_ext.influence.layout import Layout
from trainer_ext.influence.precision import Precision
from trainer_ext.influence.split import times_power
from trainer_ext.influence.storage import half_rows

_LOWEST = -512
"""Power of a token without a gradient: it must not set the unit."""


@dataclass(frozen=True, eq=False)
class Staged:
    """One module's rows, ready."""

    rows: TokenRows
    """What scores, gradients and residuals are made of."""
    half: TokenRows | None
    """The same rounded to float16, for the tensor cores; None where there are none, or with fp64."""
    unit: Tensor
    """float64 0-d: the true gradient of a token is this times its row."""


def staged(factors: ModuleFactors, layout: Layout, config: InfluenceConfig, precision: Precision) -> Staged:
    """Bring one module's factors to the layout's device and order."""
    sides = (factors.inputs, factors.output_grads)
    exponent = factors.exponent
    if layout.order is not None:
        order = layout.order.to(factors.inputs.device)
        sides = (sides[0][order], sides[1][order])
        exponent = None if exponent is None else exponent[order]
    device = layout.device
    sides = (sides[0].to(device, non_blocking=True), sides[1].to(device, non_blocking=True))
    exponent = None if exponent is None else exponent.to(device, non_blocking=True).int()
    large, small = sides if sides[0].shape[1] >= sides[1].shape[1] else sides[::-1]
    if config.token_unit_norm and config.hessian_mode == "identity":
        large, small, exponent = _unit(large, precision), _unit(small, precision), None
    if precision == "fast":
        return _fast(large, small, exponent, layout)
    dtype = torch.float64 if precision == "fp64" else torch.float32
    if exponent is not None:
        small = times_power(small.double(), exponent[:, None])
    rows = TokenRows(large.to(dtype), small.to(dtype), layout.owner)
    if precision == "fp32" and device.type == "cuda" and config.hessian_mode == "inverse":
        half = _fast(rows.large, rows.small, None, layout)
        _, power = torch.frexp(half.unit)  # 2^(power - 1): the preconditioner and its judge need one unit
        small = times_power(rows.small.double(), 1 - power).to(dtype)
        return Staged(TokenRows(rows.large, small, layout.owner), half.rows, half.unit)
    return Staged(rows, None, torch.ones((), dtype=torch.float64, device=device))


def _fast(large: Tensor, small: Tensor, exponent: Tensor | None, layout: Layout) -> Staged:
    if exponent is None or large.dtype != torch.float16 or small.dtype != torch.float16:
        empty = (large.abs().amax(dim=1) == 0) | (small.abs().amax(dim=1) == 0)
        (large, e_large), (small, e_small) = half_rows(large), half_rows(small)
        rounded = e_large.int() + e_small.int()
        exponent = (rounded if exponent is None else rounded + exponent).masked_fill(empty, _LOWEST)
    top = exponent.amax() if len(exponent) else exponent.new_zeros(())
    top = top.masked_fill(top <= _LOWEST, 0)
    exponent = exponent - top
    unit = times_power(torch.ones((), dtype=torch.float64, device=large.device), top)
    if large.is_cuda:
        rows = TokenRows(large.contiguous(), small.contiguous(), layout.owner, exponent)
        return Staged(rows, rows, unit)
    small = times_power(small.float(), exponent[:, None])
    return Staged(TokenRows(large.float(), small, layout.owner, work=torch.float32), None, unit)


def _unit(rows: Tensor, precision: Precision) -> Tensor:
    """Rows of length one; a zero row stays."""
    rows = rows.to(torch.float64 if precision == "fp64" else torch.float32)
    length = rows.norm(dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, 1.0)
