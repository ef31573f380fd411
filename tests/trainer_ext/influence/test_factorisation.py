"""Each factorisation applies the inverse of X^T X + lambda I; the Kronecker one that of a product it is exact for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.materialised import half_token_rows, in_full, normal, token_rows
from trainer_ext.influence.cholesky import BlockedCholesky
from trainer_ext.influence.curvature import DenseRows
from trainer_ext.influence.factorisation import (
    BlockedFactor,
    DenseFactor,
    DualFactor,
    Inverse,
    KroneckerFactor,
    NotPositiveDefinite,
    dense_hessian,
)
from trainer_ext.influence.gram import compact_gram

LARGE, SMALL = 4, 3
DIM = LARGE * SMALL
DAMPING = torch.tensor(0.7, dtype=torch.float64)


def _damped(full: Tensor, damping: Tensor = DAMPING) -> Tensor:
    return full.T @ full + damping * torch.eye(full.shape[1], dtype=torch.float64)


def _dense(full: Tensor) -> DenseFactor:
    return DenseFactor.of(full.T @ full, DAMPING)


@pytest.mark.parametrize("tokens", [5, 40])
@pytest.mark.parametrize("route", ["dense", "dual", "dual of dense rows"])
def test_a_factor_applies_the_inverse_of_the_damped_hessian(route: str, tokens: int) -> None:
    rows = token_rows(tokens, LARGE, SMALL)
    full, wanted = in_full(rows), normal(3, DIM, seed=9)
    factors: dict[str, Inverse] = {
        "dense": _dense(full),
        "dual": DualFactor.of(rows, DAMPING),
        "dual of dense rows": DualFactor.of(DenseRows(full, (LARGE, SMALL)), DAMPING),
    }

    solved = factors[route].solve(wanted)

    torch.testing.assert_close(solved, wanted @ torch.linalg.inv(_damped(full)), rtol=1e-10, atol=1e-12)


def test_the_inverse_itself_is_there() -> None:
    rows = token_rows(20, LARGE, SMALL)
    full = in_full(rows)

    torch.testing.assert_close(_dense(full).inverse(), torch.linalg.inv(_damped(full)))
    torch.testing.assert_close(DualFactor.of(rows, DAMPING).inverse(), torch.linalg.inv(_damped(full.T)))


def test_coefficients_of_the_dual_solve_in_the_space_of_rows() -> None:
    rows, values = token_rows(20, LARGE, SMALL), normal(3, 20)

    coefficients = DualFactor.of(rows, DAMPING).coefficients(values)

    torch.testing.assert_close(coefficients @ _damped(in_full(rows).T), values)


def _indefinite() -> Tensor:
    return torch.diag(torch.tensor([1.0, -2.0], dtype=torch.float64))


class _IndefiniteRows(DenseRows):
    """Rows whose Gram matrix rounding has made indefinite."""

    def gram(self) -> Tensor:
        return _indefinite()


def test_a_damping_too_small_for_float64_is_named() -> None:
    message = "reg_lambda: with 0.7 the system of size 2 is not positive definite in float64; raise it, or set it to -1"

    with pytest.raises(NotPositiveDefinite, match=message):
        DenseFactor.of(_indefinite(), DAMPING)
    with pytest.raises(NotPositiveDefinite, match=message):
        DualFactor.of(_IndefiniteRows(normal(2, DIM), (LARGE, SMALL)), DAMPING)


def test_the_error_is_one_of_values() -> None:
    assert issubclass(NotPositiveDefinite, ValueError)


def _blocked(large: int, small: int, groups: int) -> tuple[BlockedCholesky, Tensor]:
    """Factors of some systems, and their matrices, float64 [G, D, D]."""
    rows = [half_token_rows(400, large, small, spread=0.3, seed=20 * group) for group in range(groups)]
    compact = torch.stack([compact_gram(r.large, r.small, r.exponent) for r in rows])
    fulls = [in_full(r) for r in rows]
    damping = torch.stack([0.1 * full.square().sum() / full.shape[1] for full in fulls])
    matrices = torch.stack([_damped(full, value) for full, value in zip(fulls, damping, strict=True)])
    return BlockedCholesky.of(compact, damping.float(), large, small), matrices


@pytest.mark.parametrize("group", [0, 2])
@pytest.mark.parametrize(("large", "small"), [(4, 3), (13, 11)])
def test_a_blocked_factor_is_one_of_many(large: int, small: int, group: int) -> None:
    cholesky, matrices = _blocked(large, small, groups=3)
    factor, wanted = BlockedFactor(cholesky, group), normal(2, large * small)

    solved, inverse = factor.solve(wanted), factor.inverse()

    exact = torch.linalg.inv(matrices[group])
    assert solved.dtype == torch.float64
    assert float((solved - wanted @ exact).norm() / (wanted @ exact).norm()) < 2e-3
    assert float((inverse.double() - exact).norm() / exact.norm()) < 2e-3


def test_a_kronecker_factor_is_exact_for_a_product() -> None:
    a, b = normal(9, LARGE), normal(9, SMALL, seed=1)
    a, b = a.T @ a, b.T @ b
    a, b = a / a.trace() * 5, b / b.trace() * 5  # H = A x B / 5 has their common trace
    hessian = torch.kron(a, b) / 5
    wanted = normal(3, DIM, seed=2)

    solved = KroneckerFactor.of(a, b, DAMPING).solve(wanted)

    exact = torch.linalg.solve(hessian + DAMPING * torch.eye(DIM), wanted.T).T
    torch.testing.assert_close(solved, exact)


def test_a_kronecker_factor_preconditions_token_rows() -> None:
    rows, wanted = token_rows(300, LARGE, SMALL), normal(3, DIM)
    hessian = _damped(in_full(rows))

    solved = KroneckerFactor.of(*rows.kronecker(), DAMPING).solve(wanted)

    exact = torch.linalg.solve(hessian, wanted.T).T
    assert float((solved - exact).norm() / exact.norm()) < 0.2


@pytest.mark.parametrize("zero", ["everything", "one direction"])
def test_a_kronecker_factor_of_rows_without_full_rank_stays_positive_definite(zero: str) -> None:
    a, b = torch.zeros(LARGE, LARGE, dtype=torch.float64), torch.zeros(SMALL, SMALL, dtype=torch.float64)
    if zero == "one direction":
        a[0, 0] = b[1, 1] = 4.0
    wanted = torch.eye(DIM, dtype=torch.float64)

    solved = KroneckerFactor.of(a, b, DAMPING).solve(wanted)

    assert solved.isfinite().all()
    expected = torch.full((DIM,), 1 / 0.7, dtype=torch.float64)
    if zero == "one direction":
        expected[1] = 1 / 4.7
    torch.testing.assert_close(solved, expected.diag())


def test_distinct_entries_become_a_float64_matrix() -> None:
    rows = token_rows(20, LARGE, SMALL)
    full = in_full(rows)

    hessian = dense_hessian(compact_gram(rows.large.float(), rows.small.float(), None), (LARGE, SMALL))

    assert hessian.dtype == torch.float64
    torch.testing.assert_close(hessian, full.T @ full, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(hessian, hessian.T, rtol=0, atol=0)
