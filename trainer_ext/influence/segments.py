"""Sums and bilinear forms over the tokens of each response: the two passes over the factors that every mode needs.

Symbols
    g_r      sum of 2^e_t l_t s_t^T over the tokens of response r
    score_t  2^e_t l_t^T W s_t, with the direction W of the token's response
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.layout import OUTER_TOKENS, SCORE_TOKENS, Layout
from trainer_ext.influence.storage import on_device


def response_gradients(rows: TokenRows, layout: Layout) -> Tensor:
    """g, float64 [R', D]."""
    if not _on_tensor_cores(rows):
        return gradients_by_loop(rows, layout)
    from trainer_ext.influence import kernels  # Triton comes with CUDA builds of torch alone

    start, end, _ = layout.tiles(OUTER_TOKENS)
    assert rows.exponent is not None
    parts = kernels.segment_outer(rows.large, rows.small, rows.exponent, start, end)
    # a product with a matrix of ones and zeros adds in the same order in every run, which index_add_ does not
    return layout.membership(OUTER_TOKENS) @ parts.double()


def token_scores(rows: TokenRows, layout: Layout, directions: Tensor, direction_of: Tensor) -> Tensor:
    """score, float64 [T'], zero for rows of no response.

    Args:
        directions: W, float64 [n, D].
        direction_of: int64 [R'] on the CPU, the row of W that each response is scored against.
    """
    if not _on_tensor_cores(rows):
        return scores_by_loop(rows, layout, directions, direction_of)
    from trainer_ext.influence import kernels  # Triton comes with CUDA builds of torch alone

    start, end, response = layout.tiles(SCORE_TOKENS)
    assert rows.exponent is not None
    row_of = on_device(direction_of.to(torch.int32), response.device)[response.long()]
    return kernels.segment_scores(rows.large, rows.small, rows.exponent, start, end, row_of, directions).double()


def group_products(rows: TokenRows, layout: Layout, directions: Tensor) -> Tensor:
    """W_g X_g^T X_g for one direction of every group, float64 [G, D]; on the tensor cores alone.

    Two passes over the rows for all groups together, where `TokenRows.apply` needs the rows of each group in one piece.

    Args:
        directions: W, float64 [G, D].
    """
    from trainer_ext.influence import kernels  # Triton comes with CUDA builds of torch alone

    assert rows.exponent is not None
    start, end, response = layout.tiles(SCORE_TOKENS)
    group = layout.group_of.int()[response.long()]
    products = kernels.segment_scores(rows.large, rows.small, rows.exponent, start, end, group, directions)
    start, end, _ = layout.tiles(OUTER_TOKENS)
    parts = kernels.segment_outer(rows.large, rows.small, rows.exponent, start, end, products)
    numbers = torch.arange(len(layout.groups), device=parts.device)
    members = (numbers[:, None] == layout.group_of[None, :]).double() @ layout.membership(OUTER_TOKENS)
    return members @ parts.double()


def gradients_by_loop(rows: TokenRows, layout: Layout) -> Tensor:
    """`response_gradients`, one product a response in the rows' work type."""
    dim = rows.sides[0] * rows.sides[1]
    out = torch.zeros(len(layout.spans), dim, dtype=torch.float64, device=rows.large.device)
    for number, (start, end) in enumerate(layout.spans):
        if end > start:
            large, small = rows.factors(slice(start, end), rows.work)
            out[number] = (large.T @ small).flatten()
    return out


def scores_by_loop(rows: TokenRows, layout: Layout, directions: Tensor, direction_of: Tensor) -> Tensor:
    """`token_scores`, one product for each run of responses that share a direction, in the rows' work type."""
    out = torch.zeros(rows.count, dtype=torch.float64, device=rows.large.device)
    for start, end, direction in _runs(layout, direction_of.tolist()):
        large, small = rows.factors(slice(start, end), rows.work)
        matrix = directions[direction].to(rows.work).unflatten(0, rows.sides)
        out[start:end] = ((large @ matrix) * small).sum(dim=1)
    return out


def _runs(layout: Layout, direction_of: list[int]) -> list[tuple[int, int, int]]:
    """(start, end, direction) of tokens that stand together and share a direction."""
    runs: list[tuple[int, int, int]] = []
    for (start, end), direction in sorted(zip(layout.spans, direction_of, strict=True)):
        if runs and runs[-1][1:] == (start, direction):
            runs[-1] = (runs[-1][0], end, direction)
        elif end > start:
            runs.append((start, end, direction))
    return runs


def _on_tensor_cores(rows: TokenRows) -> bool:
    return rows.large.is_cuda and rows.large.dtype == torch.float16
