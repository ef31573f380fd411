"""Every route finds W with W H = d, with and without the own response in H, and tells its true residual."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.materialised import in_full, normal, token_rows
from trainer_ext.influence.curvature import DenseRows, GradientRows, TokenRows
from trainer_ext.influence.direct import solve_dense
from trainer_ext.influence.factorisation import DenseFactor, DualFactor, KroneckerFactor
from trainer_ext.influence.solve import (
    DampedSystem,
    Solution,
    largest_residual,
    refined,
    solve_dual,
    solve_exactly,
    solve_pcg,
)

LARGE, SMALL, RESPONSES = 4, 3, 3
DIM = LARGE * SMALL
TOLERANCE = 1e-12

ROUTES: dict[str, Callable[[DampedSystem], Solution]] = {
    "direct": lambda system: solve_dense(system, TOLERANCE),
    "dual": lambda system: solve_dual(system, TOLERANCE),
    "pcg": lambda system: solve_pcg(system, TOLERANCE),
}


def _full(rows: GradientRows) -> Tensor:
    return in_full(rows) if isinstance(rows, TokenRows) else rows.rows  # type: ignore[attr-defined]


def _rows(source: str, tokens: int = 23) -> GradientRows:
    rows = token_rows(tokens, LARGE, SMALL, responses=RESPONSES)
    if source == "token":
        return rows
    sums = [in_full(rows)[rows.owner == response].sum(dim=0) for response in range(RESPONSES)]
    return DenseRows(torch.stack(sums), (LARGE, SMALL))


def _system(rows: GradientRows, *, damping: float = 0.7, leave_out: bool = False) -> DampedSystem:
    """Directions of random weights; where a response is left out of H, each direction's own one, of weight zero."""
    omega = normal(RESPONSES, RESPONSES, seed=5)
    if leave_out:
        omega.fill_diagonal_(0)
    value = torch.tensor(damping, dtype=torch.float64)
    without = torch.arange(RESPONSES) if leave_out else None
    return DampedSystem(rows, value, omega, omega[:, rows.owner] @ _full(rows), without)


def _exact(system: DampedSystem) -> Tensor:
    """W by dense algebra, one direction at a time."""
    full, rows = _full(system.rows), []
    for number, direction in enumerate(system.directions):
        kept = full if system.without is None else full[system.rows.owner != system.without[number]]
        hessian = kept.T @ kept + system.damping * torch.eye(DIM, dtype=torch.float64)
        rows.append(torch.linalg.solve(hessian, direction))
    return torch.stack(rows)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("leave_out", [False, True], ids=["whole", "leave-one-out"])
@pytest.mark.parametrize("damping", [0.7, 1e-3])
@pytest.mark.parametrize(("source", "tokens"), [("token", 5), ("token", 23), ("response", 23)])
def test_each_route_solves_the_damped_system(
    route: str, leave_out: bool, damping: float, source: str, tokens: int
) -> None:
    system = _system(_rows(source, tokens), damping=damping, leave_out=leave_out)

    solution = ROUTES[route](system)

    torch.testing.assert_close(solution.directions, _exact(system), rtol=1e-8, atol=1e-10)
    assert solution.residual <= TOLERANCE


def test_what_leaving_out_changes_is_no_rounding() -> None:
    whole, without = (_system(_rows("token"), leave_out=leave_out) for leave_out in (False, True))
    without = DampedSystem(without.rows, without.damping, without.omega, whole.directions, without.without)

    assert float((_exact(whole) - _exact(without)).norm() / _exact(whole).norm()) > 0.1


def test_a_response_without_tokens_leaves_nothing_out() -> None:
    rows = token_rows(20, LARGE, SMALL, responses=RESPONSES - 1)
    system = _system(rows, leave_out=True)

    for solve in ROUTES.values():
        torch.testing.assert_close(solve(system).directions, _exact(system), rtol=1e-8, atol=1e-10)


def test_the_solver_comes_with_the_solution() -> None:
    system = _system(_rows("token"))

    assert [type(solve(system).inverse) for solve in ROUTES.values()] == [DenseFactor, DualFactor, KroneckerFactor]


@pytest.mark.parametrize("leave_out", [False, True], ids=["whole", "leave-one-out"])
def test_the_residual_is_that_of_the_worst_right_hand_side(leave_out: bool) -> None:
    system = _system(_rows("token"), leave_out=leave_out)
    solution = _exact(system)
    solution[1] *= 1.01
    solution[2] *= 1.002

    assert float(largest_residual(system, solution)) == pytest.approx(0.01)


def test_the_residual_of_a_zero_right_hand_side_counts_what_is_there() -> None:
    rows = _rows("token")
    nothing = torch.zeros(1, DIM, dtype=torch.float64)
    system = DampedSystem(rows, torch.tensor(0.7, dtype=torch.float64), torch.zeros(1, RESPONSES).double(), nothing)
    ones = nothing + 1

    assert float(largest_residual(system, nothing)) == 0
    assert float(largest_residual(system, ones)) == pytest.approx(float(system.apply(ones).norm()))


class _Nearly:
    """The inverse of a Hessian that is a little off, as a factor on the tensor cores is; counts its uses."""

    def __init__(self, system: DampedSystem, off: float) -> None:
        full = _full(system.rows)
        noise = normal(DIM, DIM, seed=8)
        hessian = full.T @ full + system.damping * torch.eye(DIM, dtype=torch.float64)
        scale = hessian.norm() / DIM
        self._inverse = torch.linalg.inv(hessian + off * scale * (noise @ noise.T) / DIM)
        self.uses = 0

    def solve(self, right_hand_sides: Tensor) -> Tensor:
        self.uses += 1
        return right_hand_sides @ self._inverse


@pytest.mark.parametrize("leave_out", [False, True], ids=["whole", "leave-one-out"])
def test_a_solver_that_is_a_little_off_is_refined(leave_out: bool) -> None:
    system = _system(_rows("token"), leave_out=leave_out)
    nearly = _Nearly(system, 0.01)
    assert float(largest_residual(system, nearly.solve(system.directions))) > 1e-3

    solution = solve_exactly(system, nearly, 1e-10)

    assert solution.residual <= 1e-10
    assert solution.inverse is nearly
    torch.testing.assert_close(solution.directions, _exact(system), rtol=1e-7, atol=1e-9)


def test_a_first_answer_within_the_tolerance_is_kept() -> None:
    system = _system(_rows("token"))
    nearly = _Nearly(system, 1e-6)
    start = nearly.solve(system.directions)

    solution = refined(system, start, nearly, 1e-3)

    assert torch.equal(solution.directions, start)
    assert nearly.uses == 1
    assert solution.residual == pytest.approx(float(largest_residual(system, start)))


class _Broken:
    """A factorisation that broke down."""

    def solve(self, right_hand_sides: Tensor) -> Tensor:
        return torch.full_like(right_hand_sides, torch.nan)


def test_a_broken_solver_preconditions_nothing() -> None:
    system = _system(_rows("token"))

    solution = refined(system, torch.zeros_like(system.directions), _Broken(), 1e-9)

    assert solution.residual <= 1e-9
    torch.testing.assert_close(solution.directions, _exact(system), rtol=1e-6, atol=1e-9)


def test_the_dual_is_refined_only_where_a_tolerance_asks_for_it() -> None:
    # a damping of a millionth of a millionth of the trace: the division by it leaves few digits to the dual
    system = _system(_rows("token", tokens=60), damping=1e-9)

    first, again = solve_dual(system), solve_dual(system, 1e-13)

    assert first.residual == pytest.approx(float(largest_residual(system, first.directions)))
    assert again.residual < first.residual
