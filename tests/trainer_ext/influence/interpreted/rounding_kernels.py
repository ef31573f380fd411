"""Cases of `test_kernels.py`: rounding in one kernel, against plain torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer_ext.influence.picked_rows import PickedRows
from trainer_ext.influence.rounding import half_output_grads, half_rows
from trainer_ext.influence.rounding_kernels import round_rows

EDGES = [0.0, 1.0, -1.0, 2.0**-149, 3 * 2.0**-149, 1e-39, 2.0**-126, 2.0**-127, 1e38, 2.0**127, 1.9999999, 65504.0]


def rows_of(tokens: int, k: int) -> Tensor:
    """Rows over the whole range of float32; a row for every edge too."""
    random = torch.Generator().manual_seed(k)
    rows = torch.randn(tokens + len(EDGES), k, generator=random)
    rows[:tokens] *= torch.exp2(torch.randint(-140, 120, (tokens, 1), generator=random).float())
    rows[tokens:] = torch.tensor(EDGES)[:, None] * torch.linspace(1, 0, k)
    return rows


@pytest.mark.parametrize("k", [1, 3, 48, 280, 1000])
def test_inputs_are_the_plain_ones_to_the_bit(k: int) -> None:
    rows = rows_of(40, k)

    for found, expected in zip(round_rows(rows), half_rows(rows), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.filterwarnings(
    "ignore:invalid value encountered in multiply"
)  # a gradient beyond float32 is made infinite
@pytest.mark.parametrize("k", [1, 7, 64, 280])
def test_output_gradients_are_the_plain_ones_to_the_bit(k: int) -> None:
    rows = rows_of(40, k)
    for inputs in (-128, -37, 0, 5, 127):
        exponent = torch.full((len(rows),), inputs, dtype=torch.int8)

        halves, kept = round_rows(rows, exponent)

        expected, exponents = half_output_grads(rows, exponent)
        torch.testing.assert_close(halves, expected, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(kept, exponents)


@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("positions", [None, [51, 0, 3, 3, 44], list(range(0, 52, 2))])
@pytest.mark.parametrize("weights", [None, torch.float32, torch.bfloat16, torch.float64])
def test_rows_are_picked_scaled_and_weighed_as_by_plain_operations(
    dtype: torch.dtype, positions: list[int] | None, weights: torch.dtype | None
) -> None:
    matrix = rows_of(40, 30)
    if dtype == torch.bfloat16:
        matrix *= matrix.abs() >= 2.0**-126  # smaller ones the interpreter does not widen right
    columns = matrix.to(dtype)[:, 7:19]
    wanted = None if positions is None else torch.tensor(positions)
    count = len(columns) if positions is None else len(positions)
    factors = None if weights is None else torch.linspace(-2, 3, 2 * count, dtype=weights)[::2]
    picked = PickedRows(columns, wanted, 48**-0.5, factors)
    exponent = torch.arange(count, dtype=torch.int8) - 20

    inputs = round_rows(columns, positions=wanted, scale=picked.scale, weights=factors)
    grads = round_rows(columns, exponent, positions=wanted, scale=picked.scale, weights=factors)

    expected = (*half_rows(picked), *half_output_grads(picked, exponent))
    for ours, theirs in zip((*inputs, *grads), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so(value: float) -> None:
    rows = torch.tensor([[1.0, value, 0.5], [1.0, 2.0, 0.5]])

    for halves, exponent in (round_rows(rows), round_rows(rows, torch.zeros(2, dtype=torch.int8))):
        assert not halves[0, 1].isfinite()
        assert halves[1].isfinite().all()
        assert exponent.tolist() == [0, 1]


def test_no_rows_are_rounded_to_no_rows() -> None:
    halves, exponent = round_rows(torch.empty(0, 5))

    assert (halves.shape, exponent.shape) == ((0, 5), (0,))
