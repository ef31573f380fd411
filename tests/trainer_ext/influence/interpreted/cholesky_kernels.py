"""Cases of `test_kernels.py`: the steps of the blocked Cholesky factorisation, against those in plain torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.materialised import half_token_rows, normal
from trainer_ext.influence import cholesky, cholesky_kernels
from trainer_ext.influence.cholesky import BLOCK, BlockedCholesky
from trainer_ext.influence.gram import compact_gram
from trainer_ext.influence.pairs import compact_diagonal, expanded

LARGE, SMALL = 17, 9
DIM, WHOLE = 153, 256


def _systems(groups: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct entries, s, and lambda."""
    rows = [half_token_rows(300, LARGE, SMALL, spread=0.3, seed=20 * group) for group in range(groups)]
    compact = torch.stack([compact_gram(r.large, r.small, r.exponent) for r in rows])
    diagonal = compact_diagonal(compact, LARGE, SMALL)
    damping = 0.1 * diagonal.mean(dim=1)
    return compact, (diagonal + damping[:, None]).rsqrt(), damping


def _scaled() -> tuple[Tensor, Tensor]:
    """s (H + lambda I) s and the identity beyond D, in full, float32 [2, D', D']; and the first panel."""
    compact, scale, damping = _systems()
    full = torch.eye(WHOLE).repeat(2, 1, 1)
    for group in range(2):
        hessian = expanded(compact[group], LARGE, SMALL) + damping[group] * torch.eye(DIM)
        full[group, :DIM, :DIM] = hessian * scale[group][:, None] * scale[group][None, :]
    return full, full[:, :, :BLOCK].contiguous()


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (range(WHOLE), range(BLOCK)),
        (range(BLOCK, WHOLE), range(BLOCK, WHOLE)),
        (range(DIM), range(BLOCK, DIM)),
        (range(5, 40), range(3, 10)),
    ],
)
def test_any_rows_and_columns_are_expanded(rows: range, columns: range) -> None:
    compact, scale, damping = _systems()

    panel = cholesky_kernels.panel(compact, scale, damping, rows, columns, LARGE, SMALL)

    expected = _scaled()[0][:, rows.start : rows.stop, columns.start : columns.stop]
    torch.testing.assert_close(panel, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        panel, cholesky._panel(compact, scale, damping, rows, columns, LARGE, SMALL), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("block", [0, 1])
def test_a_diagonal_block_is_inverted_and_the_panel_below_made(block: int) -> None:
    _, columns = _scaled()
    found, expected = ((torch.full((2, 3, BLOCK, BLOCK), 7.0), torch.full((2, 384, 384), 7.0).half()) for _ in range(2))

    cholesky_kernels.invert_diagonal(columns, found[0], block)
    cholesky_kernels.lower_panel(columns, found[0], found[1], block)

    factor = torch.linalg.cholesky(columns[:, :BLOCK].double())
    torch.testing.assert_close(found[0][:, block].double(), torch.linalg.inv(factor), rtol=1e-4, atol=1e-5)
    expected[0][:, block] = found[0][:, block]
    at = slice(block * BLOCK, (block + 1) * BLOCK)
    below = slice((block + 1) * BLOCK, block * BLOCK + WHOLE)
    expected[1][:, below, at] = (columns[:, BLOCK:] @ found[0][:, block].mT).half()
    assert torch.equal(found[0], expected[0])  # and nothing else was written
    torch.testing.assert_close(found[1], expected[1], rtol=2e-3, atol=1e-4)


def test_both_ways_of_a_step_of_the_factorisation_agree() -> None:
    _, columns = _scaled()
    found, expected = ((torch.zeros(2, 2, BLOCK, BLOCK), torch.zeros(2, WHOLE, WHOLE).half()) for _ in range(2))

    cholesky_kernels.invert_diagonal(columns, found[0], 0)
    cholesky_kernels.lower_panel(columns, found[0], found[1], 0)
    cholesky._invert_block(columns, expected[0], 0)
    cholesky._lower_panel(columns, *expected, 0)

    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], expected[1], rtol=2e-3, atol=1e-4)


def test_the_last_block_has_no_panel_below() -> None:
    inverses, lower = torch.ones(2, 1, BLOCK, BLOCK), torch.full((2, BLOCK, BLOCK), 7.0).half()

    cholesky_kernels.lower_panel(torch.ones(2, BLOCK, BLOCK), inverses, lower, 0)

    assert (lower == 7).all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of numpy, which interprets
def test_a_pivot_that_is_not_positive_makes_the_inverse_useless_in_its_system_alone() -> None:
    pivots = [0, 63, 64, 127]
    columns = torch.eye(BLOCK).repeat(len(pivots) + 2, 1, 1)
    for system, pivot in enumerate(pivots, start=1):
        columns[system, pivot, pivot] = -0.5
    inverses = torch.zeros(len(columns), 1, BLOCK, BLOCK)

    cholesky_kernels.invert_diagonal(columns, inverses, 0)

    assert torch.equal(inverses[[0, -1], 0], torch.eye(BLOCK).repeat(2, 1, 1))
    assert not inverses[1:-1].flatten(1).isfinite().all(dim=1).any()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("right_hand_sides", [1, 16, 19])
@pytest.mark.parametrize("span", [slice(0, 1), slice(0, 3), slice(1, 5)], ids=["one block", "all", "up to the last"])
def test_a_step_of_a_solution_joins_the_summands_and_splits_the_result(
    right_hand_sides: int, span: slice, transposed: bool
) -> None:
    whole, n = 3 * BLOCK, right_hand_sides
    inverses = torch.eye(BLOCK) + (normal(2, 3, BLOCK, BLOCK).float() / 100).tril(-1)
    lower = (normal(2, whole, whole, seed=2) / 100).half()
    factor = BlockedCholesky(torch.ones(2, whole), lower, inverses)
    values = normal(2, whole, 2 * n, seed=1).float()
    halves = torch.full(values.shape, 7.0).half()
    plain = values.clone(), halves.clone()
    at = slice(span.start * BLOCK, min(span.stop * BLOCK, whole))
    matrix = lower.double()[:, at, at].tril(-1)  # L of the blocks: below the diagonal as it stands
    for number, block in enumerate(range(at.start // BLOCK, at.stop // BLOCK)):
        own = slice(number * BLOCK, (number + 1) * BLOCK)
        matrix[:, own, own] = torch.linalg.inv(inverses[:, block].double())
    joined = (values[:, at, :n] + values[:, at, n:]).double()
    solved = torch.linalg.solve(matrix.mT if transposed else matrix, joined)

    cholesky_kernels.solve_span(values, halves, inverses, lower, span, transposed=transposed)
    cholesky._solve_span(*plain, factor, span, transposed=transposed)

    for one, pair in ((values, halves), plain):
        torch.testing.assert_close(one[:, at, :n].double(), solved, rtol=1e-4, atol=1e-4)
        assert not one[:, at, n:].any()
        both = pair[:, at, :n].double() + pair[:, at, n:].double()
        torch.testing.assert_close(both, one[:, at, :n].double(), rtol=1e-6, atol=1e-6)
    others = torch.ones(whole, dtype=torch.bool)
    others[at] = False
    assert torch.equal(values[:, others], plain[0][:, others])
    assert (halves[:, others] == 7).all()


def test_halves_of_a_panel_add_up_to_it() -> None:
    compact, scale, damping = _systems()
    columns = range(BLOCK, DIM)

    high, low = cholesky_kernels.panel_halves(compact, scale, damping, columns, LARGE, SMALL)

    expected = cholesky_kernels.panel(compact, scale, damping, range(DIM), columns, LARGE, SMALL)
    assert high.dtype == low.dtype == torch.float16
    assert torch.equal(high, expected.half())
    torch.testing.assert_close(high.double() + low.double(), expected.double(), rtol=1e-6, atol=1e-7)


def test_a_panel_is_written_where_it_is_told_to() -> None:
    compact, scale, damping = _systems()
    room = torch.full((2 * WHOLE * BLOCK + 5,), 7.0)

    panel = cholesky_kernels.panel(compact, scale, damping, range(WHOLE), range(BLOCK), LARGE, SMALL, room)

    assert panel.data_ptr() == room.data_ptr()
    assert torch.equal(panel, _scaled()[1])
    assert (room[-5:] == 7).all()
