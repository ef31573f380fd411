"""Rows that were only noted give, once they are taken, what the operations one after another give."""

from __future__ import annotations

import pytest
import torch

from trainer_ext.influence.picked_rows import PickedRows
from trainer_ext.influence.rounding import half_output_grads, half_rows

DTYPES = pytest.mark.parametrize(
    ("dtype", "result"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)


@DTYPES
def test_rows_are_picked_then_scaled_then_weighed(dtype: torch.dtype, result: torch.dtype) -> None:
    matrix, positions = torch.randn(9, 6).to(dtype), torch.tensor([7, 2, 2])
    weights = torch.tensor([0.3, -1.7, 0.0])

    found = PickedRows(matrix[:, 1:4], positions, 3**-0.5).weighed(weights).values()

    expected = (matrix[positions, 1:4].to(result) * 3**-0.5) * weights[:, None].to(result)
    assert found.dtype == result
    assert torch.equal(found, expected)


@DTYPES
@pytest.mark.parametrize("weights_dtype", [torch.float64, torch.bfloat16])
def test_the_type_of_weights_does_not_change_that_of_the_rows(
    dtype: torch.dtype, result: torch.dtype, weights_dtype: torch.dtype
) -> None:
    weighed = PickedRows(torch.ones(2, 3, dtype=dtype)).weighed(torch.full((2,), 0.1, dtype=weights_dtype))

    assert weighed.values().dtype == result
    assert torch.equal(weighed.values()[0, 0], torch.tensor(0.1, dtype=weights_dtype).to(result))


def test_nothing_to_be_done_leaves_the_matrix() -> None:
    matrix = torch.randn(4, 3)

    assert PickedRows.of(matrix).weighed(None).values() is matrix


def test_picked_rows_are_rounded_like_their_values() -> None:
    picked = PickedRows(torch.randn(9, 6), torch.tensor([8, 0]), 0.5, torch.tensor([1e-3, 7.0]))

    halves, exponent = half_rows(picked)

    for found, expected in zip((halves, exponent), half_rows(picked.values()), strict=True):
        assert torch.equal(found, expected)
    plain = half_output_grads(picked.values(), exponent)
    for found, expected in zip(half_output_grads(picked, exponent), plain, strict=True):
        assert torch.equal(found, expected)
