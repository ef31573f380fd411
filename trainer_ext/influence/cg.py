"""Conjugate gradients for many right-hand sides at once, with the operator left to the caller.

The method is a generator: it yields directions and is sent their products with H. The same lines then serve rows on
this device, and rows spread over ranks whose products are sums over all of them (`distributed.py`).

Each right-hand side has its own step lengths (Hestenes and Stiefel 1952, preconditioned as in Saad, Iterative Methods
for Sparse Linear Systems, algorithm 9.1). The recurrence's residual drifts from the true one, so that the end is always
judged by a product of its own, and the iteration starts again from there if it was wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from torch import Tensor

RESTARTS = 3
"""Times that the true residual may correct the recurrence."""


@dataclass(frozen=True, eq=False)
class Iterated:
    """Where the iteration ended."""

    solution: Tensor
    """W [n, D]."""
    residual: Tensor
    """0-d: largest true |W H - d| / |d|; a zero right-hand side counts |W H|."""
    iterations: int


Products = Generator[Tensor, Tensor, Iterated]


def conjugate_gradients(
    target: Tensor,
    start: Tensor,
    precondition: Callable[[Tensor], Tensor],
    tolerance: float,
    limit: int,
) -> Products:
    """Solve W H = d.

    Args:
        target: d, float64 [n, D].
        start: first guess, float64 [n, D].
        precondition: r [n, D] -> an approximation of r H^-1; symmetric and positive definite.
        tolerance: largest relative residual to stop at.
        limit: most iterations.

    Yields:
        W [n, D]; expects W H to be sent back.
    """
    size = target.norm(dim=1)
    size = torch.where(size > 0, size, 1.0)
    solution, iterations = start, 0
    residual = target - (yield solution)
    best, best_worst = solution, (residual.norm(dim=1) / size).max()
    for _ in range(RESTARTS):
        if float(best_worst) <= tolerance or iterations >= limit:
            break
        direction, rho = torch.zeros_like(target), torch.zeros_like(size)
        while iterations < limit and float((residual.norm(dim=1) / size).max()) > tolerance / 2:
            preconditioned = precondition(residual)
            previous, rho = rho, (residual * preconditioned).sum(dim=1)
            direction = preconditioned + _ratio(rho, previous)[:, None] * direction
            product = yield direction
            step = _ratio(rho, (direction * product).sum(dim=1))[:, None]
            solution = solution + step * direction
            residual = residual - step * product
            iterations += 1
        residual = target - (yield solution)
        worst = (residual.norm(dim=1) / size).max()
        if not bool(worst < best_worst):  # NaN, or nothing gained: arithmetic has reached its end
            break
        best, best_worst = solution, worst
    return Iterated(best, best_worst, iterations)


def driven(products: Products, apply: Callable[[Tensor], Tensor]) -> Iterated:
    """Run a generator to its end with products made here."""
    try:
        asked = next(products)
        while True:
            asked = products.send(apply(asked))
    except StopIteration as end:
        result: Iterated = end.value
        return result


def _ratio(over: Tensor, under: Tensor) -> Tensor:
    """over / under, zero where under is zero: a right-hand side that is solved stays where it is."""
    return torch.where(under != 0, over / torch.where(under != 0, under, 1.0), 0.0)
