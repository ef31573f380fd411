"""Conjugate gradients on any damped system: solved to the tolerance, or the best of what was found, and never a
residual that is not the true one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainer_ext.influence.materialised import normal
from trainer_ext.influence.cg import Iterated, conjugate_gradients, driven

SEEDS = st.integers(0, 10**6)


def _spd(dim: int, powers: float, seed: int) -> Tensor:
    """Symmetric, with eigenvalues spread evenly over some powers of ten."""
    basis, _ = torch.linalg.qr(normal(dim, dim, seed=seed))
    return basis * torch.logspace(0, powers, dim, dtype=torch.float64) @ basis.T


def _as_is(residual: Tensor) -> Tensor:
    return residual


def _solve(
    matrix: Tensor,
    target: Tensor,
    *,
    start: Tensor | None = None,
    precondition: Callable[[Tensor], Tensor] = _as_is,
    tolerance: float = 1e-10,
    limit: int = 500,
) -> Iterated:
    first = torch.zeros_like(target) if start is None else start
    return driven(conjugate_gradients(target, first, precondition, tolerance, limit), lambda w: w @ matrix)


def _residuals(matrix: Tensor, target: Tensor, solution: Tensor) -> Tensor:
    size = target.norm(dim=1)
    return (solution @ matrix - target).norm(dim=1) / torch.where(size > 0, size, 1.0)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 4), st.floats(0, 3), SEEDS)
def test_a_damped_system_is_solved_to_the_tolerance(dim: int, count: int, powers: float, seed: int) -> None:
    matrix, target = _spd(dim, powers, seed), normal(count, dim, seed=seed + 1)
    inverse = torch.linalg.inv(_spd(dim, 1.0, seed + 2))  # any preconditioner will do

    end = _solve(matrix, target, precondition=lambda r: r @ inverse, start=normal(count, dim, seed=seed + 3))

    residuals = _residuals(matrix, target, end.solution)
    assert float(residuals.max()) <= 1e-10
    torch.testing.assert_close(end.residual, residuals.max())
    torch.testing.assert_close(end.solution, torch.linalg.solve(matrix, target.T).T, rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 12), SEEDS)
def test_with_the_inverse_as_preconditioner_one_iteration_is_enough(dim: int, seed: int) -> None:
    matrix, target = _spd(dim, 2.0, seed), normal(3, dim, seed=seed + 1)

    end = _solve(matrix, target, precondition=lambda r: torch.linalg.solve(matrix, r.T).T)

    assert end.iterations == 1


def test_a_good_preconditioner_saves_iterations() -> None:
    matrix, target = _spd(60, 4.0, 0), normal(2, 60, seed=1)
    nearly = torch.linalg.inv(matrix + 0.01 * _spd(60, 4.0, 2))

    plain, helped = _solve(matrix, target), _solve(matrix, target, precondition=lambda r: r @ nearly)

    assert float(plain.residual) <= 1e-10
    assert helped.iterations < plain.iterations / 5


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=5), SEEDS)
def test_zero_right_hand_sides_have_zero_solutions_and_hold_nobody_up(zero: list[bool], seed: int) -> None:
    matrix, target = _spd(8, 2.0, seed), normal(len(zero), 8, seed=seed + 1)
    target[torch.tensor(zero)] = 0

    end = _solve(matrix, target)

    assert not end.solution[torch.tensor(zero)].any()
    assert float(_residuals(matrix, target, end.solution).max()) <= 1e-10


def test_a_zero_right_hand_side_counts_what_its_solution_leaves() -> None:
    matrix, start = 3 * torch.eye(4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)

    end = _solve(matrix, torch.zeros(1, 4, dtype=torch.float64), start=start, limit=0)

    assert float(end.residual) == pytest.approx(6.0)


def test_a_first_guess_that_is_good_enough_is_returned_as_it_is() -> None:
    matrix, target = _spd(10, 2.0, 0), normal(2, 10, seed=1)
    start = torch.linalg.solve(matrix, target.T).T
    asked: list[Tensor] = []

    def apply(w: Tensor) -> Tensor:
        asked.append(w)
        return w @ matrix

    end = driven(conjugate_gradients(target, start, _as_is, 1e-10, 100), apply)

    assert torch.equal(end.solution, start)
    assert (end.iterations, len(asked)) == (0, 1)


@settings(deadline=None)
@given(st.integers(0, 30), SEEDS)
def test_at_the_limit_the_best_found_is_returned_with_its_true_residual(limit: int, seed: int) -> None:
    matrix, target = _spd(40, 8.0, seed), normal(3, 40, seed=seed + 1)
    start = 1e-4 * normal(3, 40, seed=seed + 2)

    end = _solve(matrix, target, start=start, tolerance=1e-14, limit=limit)

    assert end.iterations <= limit
    torch.testing.assert_close(end.residual, _residuals(matrix, target, end.solution).max())
    assert float(end.residual) > 1e-14
    assert end.residual <= _residuals(matrix, target, start).max()


def test_a_tolerance_beyond_float64_ends_before_the_limit() -> None:
    matrix, target = _spd(20, 3.0, 0), normal(2, 20, seed=1)

    end = _solve(matrix, target, tolerance=0.0, limit=10**6)

    assert float(end.residual) < 1e-10
    assert end.iterations < 10**4


def test_products_that_break_down_leave_the_first_guess() -> None:
    matrix, target = _spd(10, 2.0, 0), normal(2, 10, seed=1)
    start = 0.1 * normal(2, 10, seed=2) / 100
    products = 0

    def apply(w: Tensor) -> Tensor:
        nonlocal products
        products += 1
        return w @ matrix if products == 1 else torch.full_like(w, torch.nan)

    end = driven(conjugate_gradients(target, start, _as_is, 1e-10, 100), apply)

    assert torch.equal(end.solution, start)
    torch.testing.assert_close(end.residual, _residuals(matrix, target, start).max())


def test_a_recurrence_that_went_astray_is_set_right_by_the_true_residual() -> None:
    matrix, target = _spd(10, 1.0, 0), normal(2, 10, seed=1)
    products = 0

    def apply(w: Tensor) -> Tensor:
        nonlocal products
        products += 1
        return w @ matrix * (1.01 if products == 3 else 1.0)

    end = driven(conjugate_gradients(target, torch.zeros_like(target), _as_is, 1e-10, 500), apply)

    assert float(_residuals(matrix, target, end.solution).max()) <= 1e-10


def test_right_hand_sides_do_not_mix() -> None:
    matrix, target = _spd(15, 2.0, 0), normal(3, 15, seed=1) * torch.tensor([[1.0], [1e6], [1e-6]])

    together = _solve(matrix, target).solution

    for row, one in zip(together, target, strict=True):
        torch.testing.assert_close(row, _solve(matrix, one[None]).solution[0], rtol=1e-7, atol=1e-9 * float(one.norm()))
