"""The direct route: one system in float64, or many on the tensor cores together.

A single factorisation on the tensor cores is a chain of small steps that leaves most of the device idle, so that
systems of one size wait in a pool, across groups and across modules, until a workspace is full of them. Waiting, a
system is the distinct entries of its Hessian and its right-hand sides; its rows are not held.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainer_ext.influence.cholesky import BlockedCholesky, compact_residual
from trainer_ext.influence.curvature import DenseRows, GradientRows, TokenRows
from trainer_ext.influence.factorisation import BlockedFactor, DenseFactor, dense_hessian
from trainer_ext.influence.gram import compact_gram, gram_into
from trainer_ext.influence.pairs import padded_pairs
from trainer_ext.influence.solve import DampedSystem, Solution, solve_exactly

WORKSPACE_BYTES = 3.4e9
"""Most bytes of Gram matrices and factors of one pool: six of D = 13,440."""
MOST_SYSTEMS = 24
"""Most systems of one pool: the next one is summed while it is solved."""
JITTERS = (1.0, 10.0, 100.0)
"""Multiples of the damping that a factor on the tensor cores is tried with; only its role as preconditioner sees
them."""
Answer = tuple[Tensor, BlockedFactor]
"""W, float64 [n, D], and the factor that gave it."""


def solve_dense(system: DampedSystem, tolerance: float) -> Solution:
    """One system through its Hessian in float64.

    Raises:
        NotPositiveDefinite: the damping is too small.
    """
    factor = DenseFactor.of(hessian(system.rows), system.damping)
    return solve_exactly(system, factor, tolerance)


def hessian(rows: GradientRows) -> Tensor:
    """X^T X, undamped, float64 [D, D]."""
    if isinstance(rows, DenseRows):
        return rows.rows.T @ rows.rows
    assert isinstance(rows, TokenRows)
    compact = compact_gram(*rows.factors(), None)
    return dense_hessian(compact, rows.sides)


@dataclass(frozen=True, eq=False)
class Attempt:
    """What one factorisation of a pool gave."""

    answers: list[Answer]
    usable: Tensor
    """bool [G]: where it did not break down; zeros elsewhere."""


@dataclass(eq=False)
class Pool:
    """Systems of one size that will be factored together."""

    sides: tuple[int, int]
    compact: Tensor
    """Distinct entries of their Hessians, float32 [capacity, M, N]; the first `len` are filled."""
    dampings: list[Tensor] = field(default_factory=list)
    directions: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, sides: tuple[int, int], device: torch.device, groups: int = 1) -> Pool:
        """An empty pool for rows of these sides, of modules with so many groups."""
        return cls(sides, torch.empty(capacity(sides, groups), *map(padded_pairs, sides), device=device))

    def __len__(self) -> int:
        return len(self.dampings)

    @property
    def room(self) -> int:
        """Systems that still fit."""
        return len(self.compact) - len(self)

    def add(self, half: TokenRows, norms: Tensor, damping: Tensor, directions: Tensor) -> None:
        """Take a system in by the float16 rows of its group, and |g_t|^2 [T_g] in any unit."""
        gram_into(self.compact[len(self)], half.large, half.small, half.exponent, norms)
        self.dampings.append(damping)
        self.directions.append(directions)

    def attempt(self, jitter: float = JITTERS[0]) -> Attempt:
        """Factor and solve, without waiting for the device."""
        compact = self.compact[: len(self)]
        damping = torch.stack(self.dampings).float()
        wanted = torch.nn.utils.rnn.pad_sequence(self.directions, batch_first=True)
        cholesky = BlockedCholesky.of(compact, jitter * damping, *self.sides)
        solved = cholesky.solve(wanted).double()
        # once more on the sums themselves: what the factor's rounding cost, for a hundredth of their price
        solved += cholesky.solve(compact_residual(solved, wanted, compact, damping, *self.sides))
        usable = solved.flatten(1).isfinite().all(dim=1)
        solved = solved.masked_fill(~usable[:, None, None], 0.0)
        answers = [
            (w[: len(directions)], BlockedFactor(cholesky, number))
            for number, (w, directions) in enumerate(zip(solved, self.directions, strict=True))
        ]
        return Attempt(answers, usable)

    def solve(self, first: Attempt | None = None) -> list[Answer]:
        """First answers of the systems, in order.

        A factor that broke down with every jitter gives zeros, and preconditions nothing.

        Args:
            first: the first attempt, where it was made already.
        """
        attempt = first or self.attempt()
        for jitter in JITTERS[1:]:
            if bool(attempt.usable.all()):
                break
            attempt = self.attempt(jitter)
        return attempt.answers


def capacity(sides: tuple[int, int], groups: int = 1) -> int:
    """Systems in a pool for rows of these sides: what half the workspace holds, since the next pool is summed while one is
    solved; up to all of it where that keeps the groups of a module together."""
    m, n = map(padded_pairs, sides)
    dim = sides[0] * sides[1]
    most = int(WORKSPACE_BYTES // (4 * m * n + 2 * dim * dim))
    return max(1, min(MOST_SYSTEMS, max(most // 2, min(most, groups))))
