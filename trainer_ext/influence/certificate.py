"""The residual of many solutions from a few products with H.

For independent random signs z_r the combination sum_r z_r (W_r H - d_r) / |d_r| has the sum of the squared relative
residuals as the expectation of its square (Hutchinson 1990). A few combinations therefore tell the root mean square
residual of all right-hand sides of a group, and those of all groups of a module are made together.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from trainer_ext.influence.curvature import TokenRows
from trainer_ext.influence.layout import Layout
from trainer_ext.influence.segments import group_products
from trainer_ext.influence.systems import GroupSystem

PROBES = 2
"""Combinations a module."""


def probed_residuals(
    rows: TokenRows, layout: Layout, answers: Mapping[int, tuple[GroupSystem, Tensor]], probes: int = PROBES
) -> Tensor:
    """An estimate of the root mean square of |W H - d| / |d| over the right-hand sides of each group, float64 [G'].

    Args:
        rows: of the module; float16 on a GPU.
        answers: by number of the group, in any order, its system and W, float64 [n, D]; source token, no
            leave-one-out in the Hessian.
    """
    dim = rows.sides[0] * rows.sides[1]
    groups = list(answers)
    in_a_row = groups == list(range(groups[0], groups[0] + len(groups)))
    chosen = slice(groups[0], groups[-1] + 1) if in_a_row else groups  # a list is sent to the device, which waits
    weights = {group: probe_weights(answers[group][0].directions, probes) for group in groups}
    squares = torch.zeros(len(groups), dtype=torch.float64, device=rows.large.device)
    for probe in range(probes):
        mixed = torch.zeros(len(layout.groups), dim, dtype=torch.float64, device=rows.large.device)
        for group, (_, answer) in answers.items():
            mixed[group] = weights[group][probe] @ answer
        products = group_products(rows, layout, mixed)[chosen]
        damping = torch.stack([answers[group][0].damping for group in groups])
        wanted = torch.stack([weights[group][probe] @ answers[group][0].directions for group in groups])
        squares += (products + damping[:, None] * mixed[chosen] - wanted).square().sum(dim=1)
    return squares.sqrt()


def probe_weights(directions: Tensor, probes: int = PROBES) -> Tensor:
    """z_r / (|d_r| sqrt(probes n)), float64 [probes, n], for d [n, D]: the length of all combinations together is the
    root mean square residual."""
    size = directions.norm(dim=1)
    return _signs(len(size), probes, size.device) / size.masked_fill(size == 0, 1.0)


@lru_cache(maxsize=256)
def _signs(n: int, probes: int, device: torch.device) -> Tensor:
    """z_r / sqrt(probes n), float64 [probes, n], the same in every call; kept, since sending them waits for the device."""
    generator = torch.Generator().manual_seed(n)
    signs = torch.randint(0, 2, (probes, n), generator=generator, dtype=torch.float64) * 2 - 1
    return (signs / (probes * n) ** 0.5).to(device)
