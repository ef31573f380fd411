"""Rows as they are to be read out of a larger matrix, before anything was computed.

What is kept of a hook's product is a few of its rows and columns, scaled and weighed. One operation after another that is
four launches, each longer than the work; so it is only noted here, and done by whoever takes the rows: in one kernel with
the rounding on a GPU (`rounding_kernels.py`), else by `values`. Both give the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PickedRows(NamedTuple):
    """(matrix[positions] * scale) * weights[:, None], in float32, or in float64 where the matrix is.

    The matrix must stay as it is until the rows are taken.
    """

    matrix: Tensor
    """[N, k], any floating point; may be columns of a wider one."""
    positions: Tensor | None = None
    """int64 [n], from 0 to N - 1, on the matrix's device; None: all rows."""
    scale: float = 1.0
    weights: Tensor | None = None
    """Floating point [n] on the matrix's device, rounded to the type of the result; None: ones."""

    @classmethod
    def of(cls, rows: Tensor | PickedRows) -> PickedRows:
        """All rows of a plain tensor [n, k]."""
        return cls(rows) if isinstance(rows, Tensor) else rows

    def weighed(self, weights: Tensor | None) -> PickedRows:
        """With these weights instead."""
        return PickedRows(self.matrix, self.positions, self.scale, weights)

    def values(self) -> Tensor:
        """The rows, [n, k]; the matrix itself where nothing is to be done to it."""
        rows = self.matrix if self.positions is None else self.matrix[self.positions]
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        if self.scale != 1:
            rows = rows * self.scale
        return rows if self.weights is None else rows * self.weights.to(rows.dtype)[:, None]
