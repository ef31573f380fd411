"""Triton kernels of the blocked Cholesky factorisation (`cholesky.py`), where the chain of small steps is the time: one
launch a step instead of dozens. CUDA only, imported on first use there; `cholesky.py` holds the plain equivalents.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_WIDTH = 64
"""Half a block: what one pass of the elimination holds in registers."""


@triton.jit
def _pair_place(one, other, k: tl.constexpr):
    low = tl.minimum(one, other)
    high = tl.maximum(one, other)
    block = low // 4
    return 4 * block * k - 8 * block * (block - 1) + (low - 4 * block) * (k - 4 * block) + high - 4 * block


@triton.jit
def _panel(
    compact, scale, damping, out, first_row, first_column, rows, columns,
    large: tl.constexpr, small: tl.constexpr, m: tl.constexpr, n: tl.constexpr,
    HALVES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    dim: tl.constexpr = large * small
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    group = tl.program_id(2).to(tl.int64)
    i, j = row + first_row, column + first_column
    inside = (i < dim)[:, None] & (j < dim)[None, :]
    line = _pair_place((i // small)[:, None], (j // small)[None, :], large)
    entry = _pair_place((i % small)[:, None], (j % small)[None, :], small)
    value = tl.load(compact + group * m * n + line * n + entry, mask=inside, other=0.0)
    diagonal = i[:, None] == j[None, :]
    value += tl.where(diagonal, tl.load(damping + group), 0.0)
    left = tl.load(scale + group * dim + i, mask=i < dim, other=0.0)
    right = tl.load(scale + group * dim + j, mask=j < dim, other=0.0)
    # beyond D the matrix goes on as the identity, so that all blocks are whole
    value = tl.where(inside, value * left[:, None] * right[None, :], tl.where(diagonal, 1.0, 0.0))
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    place = (group * rows + row[:, None]) * columns + column[None, :]
    if HALVES:
        high = value.to(tl.float16)
        tl.store(out + place, high, mask=mask)
        rest = tl.num_programs(2).to(tl.int64) * rows * columns
        tl.store(out + rest + place, (value - high.to(tl.float32)).to(tl.float16), mask=mask)
    else:
        tl.store(out + place, value, mask=mask)


def panel(
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
        compact: distinct entries of H, float32 [G, M, N] (`pairs.py`).
        scale: s, float32 [G, D].
        damping: lambda, float32 [G].
        room: float32 memory for the result; None: its own.
    """
    groups, m, n = compact.shape
    height, width = len(rows), len(columns)
    room = compact.new_empty(groups * height * width) if room is None else room
    out = room[: groups * height * width].view(groups, height, width)
    grid = (triton.cdiv(height, 32), triton.cdiv(width, 64), groups)
    _panel[grid](
        compact, scale, damping, out, rows.start, columns.start, height, width, large, small, m, n, False, 32, 64,
        num_warps=4,
    )  # fmt: skip
    return out


def panel_halves(
    compact: Tensor, scale: Tensor, damping: Tensor, columns: range, large: int, small: int
) -> tuple[Tensor, Tensor]:
    """All rows of some columns as `panel` gives them, rounded to float16, and what that left over; [G, D, columns]."""
    groups, m, n = compact.shape
    dim, width = large * small, len(columns)
    out = torch.empty(2, groups, dim, width, dtype=torch.float16, device=compact.device)
    grid = (triton.cdiv(dim, 32), triton.cdiv(width, 64), groups)
    _panel[grid](
        compact, scale, damping, out, 0, columns.start, dim, width, large, small, m, n, True, 32, 64, num_warps=4
    )
    return out[0], out[1]


@triton.jit
def _eliminated(matrix, WIDTH: tl.constexpr):
    """The inverse of the Cholesky factor of a symmetric tile, by elimination column after column beside an identity;
    NaN where a pivot is not positive."""
    row = tl.arange(0, WIDTH)[:, None]
    column = tl.arange(0, 2 * WIDTH)[None, :]
    identity = tl.where(row == tl.arange(0, WIDTH)[None, :], 1.0, 0.0)
    both = tl.join(matrix, identity)  # [WIDTH, WIDTH, 2]
    both = tl.reshape(tl.permute(both, (0, 2, 1)), (WIDTH, 2 * WIDTH))
    for k in range(WIDTH):
        across = tl.sum(tl.where(row == k, both, 0.0), axis=0)
        below = tl.sum(tl.where(column == k, both, 0.0), axis=1)
        pivot = tl.sum(tl.where(tl.arange(0, WIDTH) == k, below, 0.0), axis=0)
        root = 1.0 / tl.sqrt(pivot)
        across = across * root
        below = below * root
        both = tl.where(row == k, across[None, :], tl.where(row > k, both - below[:, None] * across[None, :], both))
    _, inverse = tl.split(tl.permute(tl.reshape(both, (WIDTH, 2, WIDTH)), (0, 2, 1)))
    return inverse


@triton.jit
def _invert_diagonal(columns, inverses, rows, block, blocks, WIDTH: tl.constexpr):
    group = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, WIDTH)[:, None]
    j = tl.arange(0, WIDTH)[None, :]
    span: tl.constexpr = 2 * WIDTH
    source = columns + group * rows * span
    top = _eliminated(tl.load(source + i * span + j), WIDTH)
    corner = tl.load(source + (WIDTH + i) * span + j)
    lower = tl.dot(corner, tl.trans(top), input_precision="tf32x3")
    rest = tl.load(source + (WIDTH + i) * span + WIDTH + j) - tl.dot(lower, tl.trans(lower), input_precision="tf32x3")
    bottom = _eliminated(rest, WIDTH)
    joint = -tl.dot(bottom, tl.dot(lower, top, input_precision="tf32x3"), input_precision="tf32x3")
    target = inverses + (group * blocks + block) * span * span
    tl.store(target + i * span + j, top)
    tl.store(target + i * span + WIDTH + j, tl.zeros((WIDTH, WIDTH), tl.float32))
    tl.store(target + (WIDTH + i) * span + j, joint)
    tl.store(target + (WIDTH + i) * span + WIDTH + j, bottom)


def invert_diagonal(columns: Tensor, inverses: Tensor, block: int) -> None:
    """L_jj^-1 of the first rows of a panel, into its place.

    Args:
        columns: P, float32 [G, rows, 128] contiguous.
        inverses: float32 [G, blocks, 128, 128]; one of the blocks is written.
    """
    groups, rows, _ = columns.shape
    _invert_diagonal[(groups,)](columns, inverses, rows, block, inverses.shape[1], _WIDTH, num_warps=4)


@triton.jit
def _lower_panel(
    columns, inverses, lower, rows, block, blocks, dim, ROWS: tl.constexpr, SPAN: tl.constexpr
):  # fmt: skip
    group = tl.program_id(1).to(tl.int64)
    row = SPAN + tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, SPAN)
    mask = (row < rows)[:, None]
    tile = tl.load(columns + (group * rows + row[:, None]) * SPAN + lane[None, :], mask=mask, other=0.0)
    inverse = tl.load(inverses + (group * blocks + block) * SPAN * SPAN + lane[:, None] * SPAN + lane[None, :])
    product = tl.dot(tile, tl.trans(inverse), input_precision="tf32x3").to(tl.float16)
    place = (group * dim + block * SPAN + row[:, None]) * dim + block * SPAN + lane[None, :]
    tl.store(lower + place, product, mask=mask)


def lower_panel(columns: Tensor, inverses: Tensor, lower: Tensor, block: int) -> None:
    """L_{>j, j} = P_{>j} L_jj^-T, rounded to float16, into its place.

    Args:
        columns: P, float32 [G, rows, 128] contiguous, its first 128 rows the diagonal block.
        lower: float16 [G, D', D'].
    """
    groups, rows, span = columns.shape
    if rows > span:
        grid = (triton.cdiv(rows - span, 128), groups)
        _lower_panel[grid](
            columns, inverses, lower, rows, block, inverses.shape[1], lower.shape[1], 128, span, num_warps=8
        )


@triton.jit
def _solve_span(
    values, halves, inverses, lower, first, blocks, dim, n,
    TRANSPOSED: tl.constexpr, COUNT: tl.constexpr, SPAN: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, SPAN)
    side = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    mask = (side < n)[None, :]
    for step in range(COUNT):
        block = first + (COUNT - 1 - step if TRANSPOSED else step)
        place = (group * dim + block * SPAN + lane[:, None]) * (2 * n) + side[None, :]
        value = tl.load(values + place, mask=mask, other=0.0) + tl.load(values + place + n, mask=mask, other=0.0)
        for earlier in range(step):
            other = first + (COUNT - 1 - earlier if TRANSPOSED else earlier)
            from_there = (group * dim + other * SPAN + lane[:, None]) * (2 * n) + side[None, :]
            high = tl.load(halves + from_there, mask=mask, other=0.0)
            low = tl.load(halves + from_there + n, mask=mask, other=0.0)
            if TRANSPOSED:  # of the block below the diagonal, row `other`, column `block`
                tile = (group * dim + other * SPAN + lane[None, :]) * dim + block * SPAN + lane[:, None]
            else:
                tile = (group * dim + block * SPAN + lane[:, None]) * dim + other * SPAN + lane[None, :]
            entries = tl.load(lower + tile)
            value -= tl.dot(entries, low, tl.dot(entries, high))
        base = inverses + (group * blocks + block) * SPAN * SPAN
        if TRANSPOSED:
            inverse = tl.load(base + lane[None, :] * SPAN + lane[:, None])
        else:
            inverse = tl.load(base + lane[:, None] * SPAN + lane[None, :])
        solved = tl.dot(inverse, value, input_precision="tf32x3")
        high = solved.to(tl.float16)
        tl.store(values + place, solved, mask=mask)
        tl.store(values + place + n, tl.zeros((SPAN, SIDE), tl.float32), mask=mask)
        tl.store(halves + place, high, mask=mask)
        tl.store(halves + place + n, (solved - high.to(tl.float32)).to(tl.float16), mask=mask)
        tl.debug_barrier()  # the next block's loads are of what other threads have just stored


def solve_span(
    values: Tensor, halves: Tensor, inverses: Tensor, lower: Tensor, span: slice, *, transposed: bool
) -> None:
    """x <- L_ss^-1 x (or its transpose) for the blocks s of a span, and its two float16 halves.

    Args:
        values: x as two summands side by side, float32 [G, D', 2 n]; the second is zero afterwards.
        halves: float16 [G, D', 2 n]: x rounded, and what that left over.
        inverses: float32 [G, blocks, 128, 128].
        lower: float16 [G, D', D'].
        span: blocks; those beyond the last are none.
    """
    groups, dim, twice = values.shape
    blocks, width = inverses.shape[1], inverses.shape[-1]
    count = min(span.stop, blocks) - span.start
    grid = (groups, triton.cdiv(twice // 2, 16))
    _solve_span[grid](
        values, halves, inverses, lower, span.start, blocks, dim, twice // 2, transposed, count, width, 16, num_warps=4
    )
