"""Cholesky factorisation of H + lambda I straight from its distinct entries, on the tensor cores, for many systems at
once.

H itself is never formed. With s = diag(H + lambda I)^-1/2 the scaled matrix s (H + lambda I) s has ones on its diagonal
and its factor no entry above one, which float16 holds well. Columns are factored in blocks of 128, left to right:

    P         = [s (H + lambda I) s]_{j.., j}  -  L_{j.., <j} L_{j, <j}^T     expanded on the fly, float32
    L_jj^-1   from P_j, float32
    L_{>j, j} = P_{>j} L_jj^-T                                               rounded to float16

so that the only large operand is read in the type in which it is kept, and a product is exact up to its float32 sums.
The factor of D = 13,440 takes 361 MB where H in float32 takes 722. It is meant for solutions to three digits, and as a
preconditioner for more (`solve.py` judges solutions by their residual).

With few systems the time is that of the chain of blocks. So the diagonal block goes ahead: while it is inverted, a second
stream makes the product for the rows below and expands the next panel, which need no inverse. Solutions take four blocks
a launch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from trainer_ext.influence.pairs import compact_diagonal, expanded
from trainer_ext.influence.split import split, times_power
from trainer_ext.influence.streams import SecondStream

BLOCK = 128
SPAN = 4
"""Blocks of one step of a solution."""
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
        second, rooms = SecondStream(compact.device, "products"), compact.new_empty(2, groups * whole * BLOCK)
        columns = _panel(compact, scale, damping, range(whole), range(BLOCK), large, small, rooms[0])
        for block in range(blocks):
            start, end = block * BLOCK, (block + 1) * BLOCK
            if start:
                _subtract_product(columns[:, :BLOCK], lower[:, start:end, :start], lower[:, start:end, :start].mT)
            following = None
            with second.beside():
                if start and end < whole:
                    _subtract_product(columns[:, BLOCK:], lower[:, end:, :start], lower[:, start:end, :start].mT)
                if end < whole:
                    rows, wide = range(end, whole), range(end, end + BLOCK)
                    room = rooms[(block + 1) % 2]
                    following = _panel(compact, scale, damping, rows, wide, large, small, room)
            _invert_block(columns, inverses, block)
            second.join()  # launched after the product, but it waited for no event, so that it found the device free
            if following is not None:
                _lower_panel(columns, inverses, lower, block)
                columns = following
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
        spans = [slice(at, at + SPAN) for at in range(0, self.inverses.shape[1], SPAN)]
        for span in spans:
            _solve_span(x, halves, self, span, transposed=False)
            here, below = slice(span.start * BLOCK, span.stop * BLOCK), slice(span.stop * BLOCK, None)
            if span is not spans[-1]:
                _subtract_product(x[:, below], self.lower[:, below, here], halves[:, here])
        for span in reversed(spans):
            here, below = slice(span.start * BLOCK, span.stop * BLOCK), slice(span.stop * BLOCK, None)
            if span is not spans[-1]:
                _subtract_product(x[:, here], self.lower[:, below, here].mT, halves[:, below])
            _solve_span(x, halves, self, span, transposed=True)
        return (x[:, :dim, :n].mT * self.scale[:, None] * size).contiguous()


def compact_residual(
    solution: Tensor, right_hand_sides: Tensor, compact: Tensor, damping: Tensor, large: int, small: int
) -> Tensor:
    """d - W (H + lambda I), float64 [G, n, D], with H expanded from its distinct entries block by block.

    On a GPU both factors of a product are the sum of two float16 numbers, 21 bits each: what the rounding of a factor
    left over is a thousand times what that leaves.

    Args:
        solution, right_hand_sides: W and d, float64 [G, n, D].
    """
    if compact.is_cuda:
        return right_hand_sides - _hessian_product(solution, compact, damping, large, small)
    out = right_hand_sides.clone()
    ones = torch.ones_like(solution[:, 0], dtype=torch.float32)
    dim = large * small
    for start in range(0, dim, RESIDUAL_COLUMNS):
        end = min(start + RESIDUAL_COLUMNS, dim)
        columns = _panel(compact, ones, damping, range(dim), range(start, end), large, small)
        out[:, :, start:end] -= solution @ columns.double()
    return out


def _hessian_product(directions: Tensor, compact: Tensor, damping: Tensor, large: int, small: int) -> Tensor:
    """W (H + lambda I), float64 [G, n, D], with H scaled to a diagonal of ones, where float16 holds it well."""
    from trainer_ext.influence import cholesky_kernels

    (groups, n, dim), width = directions.shape, RESIDUAL_COLUMNS
    size = (compact_diagonal(compact, large, small) + damping[:, None]).sqrt()
    halves = split(directions * size[:, None], dim=(1, 2))
    both = torch.cat([halves.high, halves.low], dim=1)
    out = torch.empty(groups, 2 * n, dim, device=compact.device)
    for start in range(0, dim, width):
        columns = range(start, min(start + width, dim))
        high, low = cholesky_kernels.panel_halves(compact, size.reciprocal(), damping, columns, large, small)
        product = torch.bmm(both, high, out_dtype=torch.float32)
        torch.baddbmm(product[:, :n], halves.high, low, out_dtype=torch.float32, out=product[:, :n])
        out[:, :, start : columns.stop] = product
    return times_power((out[:, :n].double() + out[:, n:]) * size[:, None], halves.power)


def _panel(
    compact: Tensor,
    scale: Tensor,
    damping: Tensor,
    rows: range,
    columns: range,
    large: int,
    small: int,
    room: Tensor | None = None,
) -> Tensor:
    """Some rows and columns of s (H + lambda I) s, float32 [G, rows, columns]; the identity beyond D.

    Args:
        room: float32 memory for the result, used on a GPU.
    """
    if compact.is_cuda:
        from trainer_ext.influence import cholesky_kernels  # Triton comes with CUDA builds of torch alone

        return cholesky_kernels.panel(compact, scale, damping, rows, columns, large, small, room)
    dim, whole = large * small, max(rows.stop, columns.stop, large * small)
    matrices = torch.eye(whole).repeat(len(compact), 1, 1)
    for matrix, entries, s, value in zip(matrices, compact, scale, damping, strict=True):
        matrix[:dim, :dim] = (expanded(entries, large, small) + value * torch.eye(dim)) * s[:, None] * s[None, :]
    return matrices[:, rows.start : rows.stop, columns.start : columns.stop].contiguous()


def _invert_block(columns: Tensor, inverses: Tensor, block: int) -> None:
    """L_jj^-1 from the first rows of a panel P, into its place; NaN where there is none."""
    if columns.is_cuda:
        from trainer_ext.influence import cholesky_kernels

        cholesky_kernels.invert_diagonal(columns, inverses, block)
        return
    factor, info = torch.linalg.cholesky_ex(columns[:, :BLOCK])
    inverse = torch.linalg.solve_triangular(factor, torch.eye(BLOCK).expand_as(factor), upper=False)
    inverses[:, block] = torch.where(info[:, None, None] == 0, inverse, torch.nan)


def _lower_panel(columns: Tensor, inverses: Tensor, lower: Tensor, block: int) -> None:
    """L_{>j, j} from the other rows, into its place."""
    if columns.is_cuda:
        from trainer_ext.influence import cholesky_kernels

        cholesky_kernels.lower_panel(columns, inverses, lower, block)
        return
    start, end = block * BLOCK, (block + 1) * BLOCK
    lower[:, end:, start:end] = columns[:, BLOCK:] @ inverses[:, block].mT


def _solve_span(values: Tensor, halves: Tensor, factor: BlockedCholesky, span: slice, *, transposed: bool) -> None:
    """x <- L_ss^-1 x (or its transpose) for a few blocks s from its two summands [.., 2 n], and its two float16
    halves."""
    if values.is_cuda:
        from trainer_ext.influence import cholesky_kernels

        cholesky_kernels.solve_span(values, halves, factor.inverses, factor.lower, span, transposed=transposed)
        return
    n, last = values.shape[2] // 2, min(span.stop, factor.inverses.shape[1])
    blocks = range(span.start, last)
    for block in reversed(blocks) if transposed else blocks:
        at, below = slice(block * BLOCK, (block + 1) * BLOCK), slice((block + 1) * BLOCK, last * BLOCK)
        if transposed:
            _subtract_product(values[:, at], factor.lower[:, below, at].mT, halves[:, below])
        inverse = factor.inverses[:, block].mT if transposed else factor.inverses[:, block]
        solved = inverse @ (values[:, at, :n] + values[:, at, n:])
        values[:, at, :n], values[:, at, n:] = solved, 0.0
        halves[:, at, :n] = solved
        halves[:, at, n:] = solved - halves[:, at, :n].float()
        if not transposed:
            _subtract_product(values[:, below], factor.lower[:, below, at], halves[:, at])


def _subtract_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total -= left @ right for float16 operands, summed in float32."""
    if total.is_cuda:
        torch.baddbmm(total, left, right, out_dtype=torch.float32, alpha=-1, out=total)
    else:
        total.baddbmm_(left.float(), right.float(), alpha=-1)
