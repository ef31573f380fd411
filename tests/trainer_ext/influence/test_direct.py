"""Systems of one size are solved together as they would be alone, in the order in which they came."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.trainer_ext.influence.materialised import half_token_rows, in_full, normal, token_rows
from trainer_ext.influence import gram
from trainer_ext.influence.curvature import DenseRows, TokenRows
from trainer_ext.influence.direct import MOST_SYSTEMS, WORKSPACE_BYTES, Pool, capacity, hessian, solve_dense
from trainer_ext.influence.factorisation import NotPositiveDefinite
from trainer_ext.influence.pairs import expanded, padded_pairs
from trainer_ext.influence.solve import DampedSystem, refined

CPU = torch.device("cpu")
SIDES = (13, 11)
DIM = 143


def _system(number: int, directions: int, *, tokens: int = 400, share: float = 0.1) -> DampedSystem:
    """Float16 rows, damped by a share of the mean diagonal entry; directions one for one in the first responses."""
    rows = half_token_rows(tokens, *SIDES, seed=100 * number)
    rows = TokenRows(rows.large, rows.small, torch.arange(tokens) % directions, rows.exponent)
    full = in_full(rows)
    omega = normal(directions, directions, seed=number)
    damping = share * full.square().sum() / DIM
    return DampedSystem(rows, damping, omega, omega[:, rows.owner] @ full)


def _exact(system: DampedSystem) -> Tensor:
    full = in_full(system.rows) if isinstance(system.rows, TokenRows) else system.rows.rows  # type: ignore[attr-defined]
    damped = full.T @ full + system.damping * torch.eye(full.shape[1], dtype=torch.float64)
    return torch.linalg.solve(damped, system.directions.T).T


def _error(solution: Tensor, system: DampedSystem) -> float:
    exact = _exact(system)
    return float((solution - exact).norm() / exact.norm())


def _pool(*systems: DampedSystem) -> Pool:
    pool = Pool.of(SIDES, CPU)
    for system in systems:
        assert isinstance(system.rows, TokenRows)
        pool.add(system.rows, system.rows.square_norms(), system.damping, system.directions)
    return pool


def test_systems_of_a_pool_are_solved_in_their_order() -> None:
    systems = [_system(number, directions) for number, directions in enumerate((3, 1, 7))]

    answers = _pool(*systems).solve()

    assert [answer.shape for answer, _ in answers] == [(3, DIM), (1, DIM), (7, DIM)]
    for (answer, factor), system in zip(answers, systems, strict=True):
        assert answer.dtype == torch.float64
        assert _error(answer, system) < 5e-3
        assert _error(factor.solve(system.directions), system) < 1e-2


def test_the_rounding_of_a_factor_is_taken_back_on_the_sums() -> None:
    system = _system(0, 3)
    pool = _pool(system)
    sums = expanded(pool.compact[0].double(), *SIDES) + system.damping * torch.eye(DIM, dtype=torch.float64)
    exact = torch.linalg.solve(sums, system.directions.T).T

    [(answer, factor)] = pool.solve()

    first = factor.solve(system.directions)
    assert float((answer - exact).norm()) < float((first - exact).norm()) / 50


def test_factors_of_a_pool_refine_to_any_tolerance() -> None:
    systems = [_system(number, 2) for number in range(2)]

    for (answer, factor), system in zip(_pool(*systems).solve(), systems, strict=True):
        solution = refined(system, answer, factor, 1e-10)
        assert solution.residual <= 1e-10
        assert _error(solution.directions, system) < 1e-7


def test_a_pool_fills_up() -> None:
    pool, system = Pool.of(SIDES, CPU), _system(0, 2)
    room = pool.room
    assert (len(pool), room) == (0, capacity(SIDES))

    for filled in (1, 2):
        assert isinstance(system.rows, TokenRows)
        pool.add(system.rows, system.rows.square_norms(), system.damping, system.directions)
        assert (len(pool), pool.room) == (filled, room - filled)


def test_a_first_attempt_that_was_made_already_is_not_made_again() -> None:
    pool = _pool(_system(0, 3), _system(1, 2))
    attempt = pool.attempt()

    assert pool.solve(attempt) is attempt.answers


def test_the_largest_tokens_are_summed_more_precisely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "SMALL_GRAM", 0)
    system = _system(0, 3)
    assert isinstance(system.rows, TokenRows)
    careless = Pool.of(SIDES, CPU)
    careless.add(system.rows, torch.arange(400.0), system.damping, system.directions)

    (careful, _), (other, _) = _pool(system).solve()[0], careless.solve()[0]

    assert _error(careful, system) < _error(other, system) / 3


def test_a_damping_below_the_rounding_still_gives_a_preconditioner() -> None:
    # 60 tokens in 143 dimensions: the sums' rounding makes the rest of the spectrum negative
    system = _system(0, 2, tokens=60, share=1e-4)

    [(answer, factor)] = _pool(system).solve()

    assert answer.isfinite().all()
    solution = refined(system, answer, factor, 1e-8)
    assert solution.residual <= 1e-8


def test_a_factor_that_broke_down_gives_zeros_and_spoils_no_other() -> None:
    systems = [_system(number, 2) for number in range(3)]
    pool = _pool(*systems)
    pool.compact[1] = torch.nan

    answers = pool.solve()

    assert not answers[1][0].any()
    for number in (0, 2):
        answer, factor = answers[number]
        assert refined(systems[number], answer, factor, 1e-8).residual <= 1e-8
    broken, factor = answers[1]
    assert refined(systems[1], broken, factor, 1e-8).residual <= 1e-8


@pytest.mark.parametrize("source", ["tokens", "responses"])
def test_the_hessian_of_any_rows_is_their_gram_matrix(source: str) -> None:
    rows = DenseRows(normal(9, 12), (4, 3)) if source == "responses" else token_rows(20, 4, 3)
    full = rows.rows if isinstance(rows, DenseRows) else in_full(rows)

    torch.testing.assert_close(hessian(rows), full.T @ full)


def test_one_system_alone_is_solved_in_float64() -> None:
    rows = token_rows(20, 4, 3)
    omega = normal(3, 3)
    directions = omega[:, rows.owner] @ in_full(rows)
    system = DampedSystem(rows, torch.tensor(0.7, dtype=torch.float64), omega, directions)

    solution = solve_dense(system, 1e-12)

    torch.testing.assert_close(solution.directions, _exact(system), rtol=1e-9, atol=1e-12)
    assert solution.residual <= 1e-12


def test_a_damping_that_is_too_small_is_an_error_in_float64() -> None:
    rows = DenseRows(torch.zeros(2, 12, dtype=torch.float64), (4, 3))
    nothing = torch.zeros(1, 12, dtype=torch.float64)
    system = DampedSystem(rows, torch.tensor(0.0, dtype=torch.float64), torch.zeros(1, 2).double(), nothing)

    with pytest.raises(NotPositiveDefinite, match="reg_lambda: with 0 the system of size 12"):
        solve_dense(system, 1e-12)


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 40))
def test_a_pool_stays_within_its_bytes_unless_one_system_is_larger(large: int, small: int, groups: int) -> None:
    systems = capacity((large, small), groups)

    bytes_each = 4 * padded_pairs(large) * padded_pairs(small) + 2 * (large * small) ** 2
    assert 1 <= systems <= MOST_SYSTEMS
    assert systems == 1 or systems * bytes_each <= WORKSPACE_BYTES
    half = 2 * systems * bytes_each <= WORKSPACE_BYTES
    assert half or systems <= max(1, groups), "more than half for the groups of one module alone"
    assert systems in (MOST_SYSTEMS, groups) or 2 * (systems + 1) * bytes_each > WORKSPACE_BYTES


def test_largest_systems_at_factor_32_make_a_pool_of_three_or_of_a_module_of_six_prompts() -> None:
    assert [capacity((280, 48), groups) for groups in (1, 4, 6, 12)] == [3, 4, 6, 6]
