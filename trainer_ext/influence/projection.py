"""Random projections of activations and output gradients: Rademacher signs over sqrt(k), drawn without a random
generator.

The signs are the bits of SHAKE-256 of (seed, module, side), so every rank, restart, device and torch version sees the
same matrix and scores of different runs compare. A side that keeps its full width (k equal to the dimension, as with
factor 1) is not projected at all: a square random matrix would cost a product and lose exactness for nothing.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig

Side = Literal["in", "out"]


def projection_dims(in_features: int, out_features: int, config: InfluenceConfig) -> tuple[int, int]:
    """(k_in, k_out) of a linear layer: each dim // factor and at least 1, then shrunk until k_in * k_out fits the
    cap."""
    k_in, k_out = (max(1, dim // config.projection_dim_factor) for dim in (in_features, out_features))
    while 0 < config.max_hessian_dim < k_in * k_out:
        if k_in >= k_out:
            k_in -= 1
        else:
            k_out -= 1
    return k_in, k_out


def rademacher_signs(dim: int, k: int, *, seed: int, module: str, side: Side) -> Tensor:
    """int8 [dim, k] of +1 and -1, a pure function of its arguments."""
    key = f"{seed}\0{module}\0{side}".encode()
    digest = hashlib.shake_256(key).digest((dim * k + 7) // 8)
    octets = torch.frombuffer(bytearray(digest), dtype=torch.uint8)
    bits = (octets[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[: dim * k].reshape(dim, k).to(torch.int8) * 2 - 1


class Projection:
    """x -> x P for rows x [n, dim], P [dim, k] of +-1/sqrt(k); the identity where k == dim.

    The signs are kept as int8, a quarter of what float32 would hold, and follow the rows to their device on first use.
    """

    def __init__(self, dim: int, k: int, *, seed: int, module: str, side: Side) -> None:
        self.dim, self.k = dim, k
        self._signs = None if k == dim else rademacher_signs(dim, k, seed=seed, module=module, side=side)

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, dim] of any floating point to [n, k] in float32, or in float64 where the rows are.

        Products run in that type, under autocast too: rounding to bfloat16 would cost more than the whole solve does.
        """
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        if self._signs is None:
            return rows
        self._signs = self._signs.to(rows.device)
        with torch.autocast(rows.device.type, enabled=False):
            return rows @ self._signs.to(rows.dtype) / math.sqrt(self.k)
