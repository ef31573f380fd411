"""Random projections of activations and output gradients: Rademacher signs over sqrt(k), drawn without a random
generator.

The signs are the bits of SHAKE-256 of (seed, module, side), so every rank, restart, device and torch version sees the
same matrix and scores of different runs compare. A side that keeps its full width (k equal to the dimension, as with
factor 1) is not projected at all: a square random matrix would cost a product and lose exactness for nothing.

A product costs one pass over the wide rows, whatever k is; rows that several projections share are read once for all of
them (`JointProjection`). Picking rows and the factor 1/sqrt(k) are left to whoever takes the result (`picked_rows.py`). On
a GPU 16-bit rows are multiplied as they are: +1 and -1 are exact in their type, and the tensor cores add up in float32, so
that nothing is lost that a float32 product would have kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor

from trainer_ext.influence.config import InfluenceConfig
from trainer_ext.influence.picked_rows import PickedRows
from trainer_ext.influence.storage import on_device

Side = Literal["in", "out"]

_ALIGNED = 8
"""16-bit matrices are this many columns wide, or a multiple: 16 bytes, below which a product leaves the tensor cores."""
_HALVES = (torch.bfloat16, torch.float16)
_Key = tuple[torch.device, torch.dtype]
"""Where and how signs are kept."""


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


def kept_dtype(rows: torch.dtype, device: torch.device) -> torch.dtype:
    """The type that signs are kept in for rows of this type: their own where that is exact and fast, else int8."""
    return rows if device.type == "cuda" and rows in _HALVES else torch.int8


class Projection:
    """x -> x P for rows x [n, dim], P [dim, k] of +-1/sqrt(k); the identity where k == dim."""

    def __init__(self, dim: int, k: int, *, seed: int, module: str, side: Side) -> None:
        self.dim, self.k = dim, k
        self._key = (seed, module, side)
        self._alone = JointProjection([self])

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, dim] of any floating point to [n, k] in float32, or in float64 where the rows are.

        Sums run in that type, under autocast too: rounding to bfloat16 would cost more than the whole solve does.
        """
        return self._alone(rows)[0].values()

    @property
    def keeps_width(self) -> bool:
        """Whether this is the identity."""
        return self.k == self.dim

    def signs(self) -> Tensor:
        """int8 [dim, k], drawn anew."""
        seed, module, side = self._key
        return rademacher_signs(self.dim, self.k, seed=seed, module=module, side=side)


class JointProjection:
    """Several projections of rows of one width, in one product.

    The signs of all of them are one matrix, kept once for each device and type of rows that it met.

    Args:
        parts: of equal `dim`.
        heirs_of: others with some of these parts; what signs they keep is copied from them and not drawn again.

    Raises:
        ValueError: the widths differ.
    """

    def __init__(self, parts: Sequence[Projection], heirs_of: Sequence[JointProjection] = ()) -> None:
        if len({part.dim for part in parts}) != 1:
            raise ValueError(f"projections of one product: widths differ, {[part.dim for part in parts]}")
        self._parts = tuple(parts)
        self._drawn = [part for part in parts if not part.keeps_width]
        self._starts = list(accumulate((part.k for part in self._drawn), initial=0))
        self._kept: dict[_Key, Tensor] = {}
        for key in {key for other in heirs_of for key in other._kept}:
            known = {part: columns for other in heirs_of for part, columns in other._columns(key).items()}
            if all(part in known for part in self._drawn):
                self._kept[key] = _aligned(torch.cat([known[part] for part in self._drawn], dim=1))

    def __call__(self, rows: Tensor, positions: Tensor | None = None) -> list[PickedRows]:
        """One [n, k] for each part, in its order; its values are float32, or float64 where the rows are.

        Args:
            rows: [N, dim], any floating point.
            positions: int64 [n], the rows that are wanted, on their device; None: all. A minority is gathered before
                the product, a majority is picked out of it (`product_first`).
        """
        if not self._drawn:
            return [PickedRows(rows, positions)] * len(self._parts)
        if positions is not None and not product_first(len(positions), len(rows)):
            rows, positions = rows[positions], None
        sums = iter(self._split(self._sums(rows)))
        return [
            PickedRows(rows, positions) if part.keeps_width else PickedRows(next(sums), positions, part.k**-0.5)
            for part in self._parts
        ]

    def _sums(self, rows: Tensor) -> Tensor:
        """[N, columns]: the rows' sums over all signs."""
        signs = self._signs(rows)
        if signs.dtype == rows.dtype:  # autocast leaves products with a type of their own alone
            return torch.mm(rows, signs, out_dtype=torch.float32)
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        signs = signs.to(rows.dtype)
        if not torch.is_autocast_enabled(rows.device.type):
            return rows @ signs
        with torch.autocast(rows.device.type, enabled=False):
            return rows @ signs

    def _signs(self, rows: Tensor) -> Tensor:
        key = rows.device, kept_dtype(rows.dtype, rows.device)
        if key not in self._kept:
            signs = on_device(torch.cat([part.signs() for part in self._drawn], dim=1), rows.device)
            self._kept[key] = _aligned(signs.to(key[1]))
        return self._kept[key]

    def _columns(self, key: _Key) -> dict[Projection, Tensor]:
        """The part of the kept matrix that is each part's own."""
        return dict(zip(self._drawn, self._split(self._kept[key]), strict=True)) if key in self._kept else {}

    def _split(self, matrix: Tensor) -> list[Tensor]:
        """The columns of each drawn part, without those that only align."""
        return [matrix.narrow(1, start, part.k) for start, part in zip(self._starts, self._drawn, strict=False)]


def product_first(wanted: int, rows: int) -> bool:
    """Whether to project all rows and then pick, and not the other way round.

    A pass over memory reads a wide row once; gathering it before costs three: read, write, read. So from a third on the
    product over all rows moves less. Where products are bound by arithmetic, it does more; from a half on, at most twice.
    """
    return 2 * wanted >= rows


def _aligned(signs: Tensor) -> Tensor:
    """16-bit matrices get columns of zeros, up to a width that the tensor cores read without detours."""
    return signs if signs.dtype == torch.int8 else torch.nn.functional.pad(signs, (0, -signs.shape[1] % _ALIGNED))
