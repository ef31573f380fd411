"""Cholesky factorisation of H + lambda I straight from its distinct entries, on the tensor cores, for many systems at
once.

H itself is never formed. With s = diag(H + lambda I)^-1/2 the scaled matrix s (H + lambda I) s has ones on its diagonal
and its factor no entry above one, which float16 holds well. Columns are factored in blocks of 128, left to right:

    P         = [s (H + lambda I) s]_{j.., j}  -  L_{j.., <j} L_{j, <j}^T     expanded on the fly, float32
    L_jj^-1   from P_j, float32
    L_{>j, j} = P_{>j} L_jj^-T                                               rounded to float16

so that the only large operand is read in the type in which it is kept, and a product is exact up to its float32 sums.
The factor of D = 13,440 takes 361 MB where H in float32 takes 722. It is meant for solutions to three digits, and as a
preconditioner for more (`solve.py` judges solutions by their residual). A block takes four launches, whatever the
number of systems: with few of them the time is that of the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from trainer_ext.influence.pairs import compact_diagonal, expanded

BLOCK = 128
RESIDUAL_COLUMNS = 512
"""Columns of H that are expanded at once to check a solution."""


@dataclass(frozen=True, eq=False)
class BlockedCholesky:
    """Factors of G matrices of one size D; D' is D rounded up to whole blocks, beyond D stands the identity."""

    scale: Tensor
    """s, float32 [G, D]."""
    lower: Tensor
    """L below its diagonal blocks, float16 [G, D', D']; other entries are not set."""
    inverses: Tensor
    """L_jj^-1 of each diagonal block, float32 [G, blocks, 128, 128]."""

    @classmethod
    def of(cls, compact: Tensor, damping: Tensor, large: int, small: int) -> Self:
        """Factor, without waiting for the device.

        Args:
            compact: distinct entries of H, float32 [G, M, N] (`pairs.py`).
            damping: lambda, float32 [G].
            large, small: sides of the rows; D = large * small.
        """
        groups, dim = len(compact), large * small
        blocks = -(-dim // BLOCK)
        whole = blocks * BLOCK
        scale = (compact_diagonal(compact, large, small) + damping[:, None]).rsqrt()
        lower = torch.empty(groups, whole, whole, dtype=torch.float16, device=compact.device)
        inverses = torch.empty(groups, blocks, BLOCK, BLOCK, device=compact.device)
        for block in range(blocks):
            start, end = block * BLOCK, (block + 1) * BLOCK
            columns = _panel(compact, scale, damping, range(start, whole), range(start, end), large, small)
            if start:
                _subtract_product(columns, lower[:, start:, :start], lower[:, start:end, :start].mT)
            _factor_block(columns, inverses, lower, block)
        return cls(scale, lower, inverses)

    @property
    def failed(self) -> Tensor:
        """bool [G]: not positive definite in this arithmetic; the factor is then of no use."""
        return ~self.inverses[:, -1].flatten(1).isfinite().all(dim=1)

    def solve(self, right_hand_sides: Tensor) -> Tensor:
        """d (H + lambda I)^-1, float32 [G, n, D], for d [G, n, D]."""
        groups, n, dim = right_hand_sides.shape
        size = right_hand_sides.abs().amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        # x is kept as the sum of what the upper and the lower halves of its factors contributed
        x = torch.zeros(groups, self.lower.shape[1], 2 * n, device=self.lower.device)
        x[:, :dim, :n] = (right_hand_sides / size * self.scale[:, None]).mT
        halves = torch.empty_like(x, dtype=torch.float16)
        blocks = self.inverses.shape[1]
        for block in range(blocks):
            _solve_block(x, halves, self.inverses, block, transposed=False)
            here, below = slice(block * BLOCK, (block + 1) * BLOCK), slice((block + 1) * BLOCK, None)
            if block < blocks - 1:
                _subtract_product(x[:, below], self.lower[:, below, here], halves[:, here])
        for block in reversed(range(blocks)):
            here, below = slice(block * BLOCK, (block + 1) * BLOCK), slice((block + 1) * BLOCK, None)
            if block < blocks - 1:
                _subtract_product(x[:, here], self.lower[:, below, here].mT, halves[:, below])
            _solve_block(x, halves, self.inverses, block, transposed=True)
        return (x[:, :dim, :n].mT * self.scale[:, None] * size).contiguous()


def compact_residual(
    solution: Tensor, right_hand_sides: Tensor, compact: Tensor, damping: Tensor, large: int, small: int
) -> Tensor:
    """d - W (H + lambda I), float64 [G, n, D], with H expanded from its distinct entries block by block.

    Args:
        solution, right_hand_sides: W and d, float64 [G, n, D].
    """
    out = right_hand_sides.clone()
    ones = torch.ones_like(solution[:, 0], dtype=torch.float32)
    dim = large * small
    for start in range(0, dim, RESIDUAL_COLUMNS):
        end = min(start + RESIDUAL_COLUMNS, dim)
        columns = _panel(compact, ones, damping, range(dim), range(start, end), large, small)
        out[:, :, start:end] -= solution @ columns.double()
    return out


def _panel(
    compact: Tensor, scale: Tensor, damping: Tensor, rows: range, columns: range, large: int, small: int
) -> Tensor:
    """Some rows and columns of s (H + lambda I) s, float32 [G, rows, columns]; the identity beyond D."""
    if compact.is_cuda:
        from trainer_ext.influence import cholesky_kernels  # Triton comes with CUDA builds of torch alone

        return cholesky_kernels.panel(compact, scale, damping, rows, columns, large, small)
    dim, whole = large * small, max(rows.stop, columns.stop, large * small)
    matrices = torch.eye(whole).repeat(len(compact), 1, 1)
    for matrix, entries, s, value in zip(matrices, compact, scale, damping, strict=True):
        matrix[:dim, :dim] = (expanded(entries, large, small) + value * torch.eye(dim)) * s[:, None] * s[None, :]
    return matrices[:, rows.start : rows.stop, columns.start : columns.stop].contiguous()


def _factor_block(columns: Tensor, inverses: Tensor, lower: Tensor, block: int) -> None:
    """L_jj^-1 and L_{>j, j} from a panel P, into their places."""
    if columns.is_cuda:
        from trainer_ext.influence import cholesky_kernels

        cholesky_kernels.invert_diagonal(columns, inverses, block)
        cholesky_kernels.lower_panel(columns, inverses, lower, block)
        return
    factor, info = torch.linalg.cholesky_ex(columns[:, :BLOCK])
    inverse = torch.linalg.solve_triangular(factor, torch.eye(BLOCK).expand_as(factor), upper=False)
    inverses[:, block] = torch.where(info[:, None, None] == 0, inverse, torch.nan)
    start, end = block * BLOCK, (block + 1) * BLOCK
    lower[:, end:, start:end] = columns[:, BLOCK:] @ inverses[:, block].mT


def _solve_block(values: Tensor, halves: Tensor, inverses: Tensor, block: int, *, transposed: bool) -> None:
    """x_j <- L_jj^-1 x_j (or its transpose) from its two summands [.., 2 n], and its two float16 halves."""
    if values.is_cuda:
        from trainer_ext.influence import cholesky_kernels

        cholesky_kernels.solve_block(values, halves, inverses, block, transposed=transposed)
        return
    at, n = slice(block * BLOCK, (block + 1) * BLOCK), values.shape[2] // 2
    inverse = inverses[:, block].mT if transposed else inverses[:, block]
    solved = inverse @ (values[:, at, :n] + values[:, at, n:])
    values[:, at, :n], values[:, at, n:] = solved, 0.0
    halves[:, at, :n] = solved
    halves[:, at, n:] = solved - halves[:, at, :n].float()


def _subtract_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total -= left @ right for float16 operands, summed in float32."""
    if total.is_cuda:
        torch.baddbmm(total, left, right, out_dtype=torch.float32, alpha=-1, out=total)
    else:
        total.baddbmm_(left.float(), right.float(), alpha=-1)
