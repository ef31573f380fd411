"""Rounding to float16 with a power of two a token loses no more than stated, over the whole range of float32."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer_ext.influence.rounding import half_output_grads, half_rows


def _restored(rows: Tensor, exponent: Tensor) -> Tensor:
    return rows.double() * torch.exp2(exponent.double())[:, None]


def _assert_within_half_precision(rows: Tensor) -> tuple[Tensor, Tensor]:
    halves, exponent = half_rows(rows)
    assert (halves.dtype, exponent.dtype) == (torch.float16, torch.int8)
    assert (halves.shape, exponent.shape) == (rows.shape, rows.shape[:1])
    largest = rows.double().abs().amax(dim=1)
    error = (_restored(halves, exponent) - rows.double()).abs().amax(dim=1)
    assert (error <= 2.0**-11 * largest).all()
    kept = halves.double().abs().amax(dim=1)
    in_range = (largest > 0) & (exponent > -128)
    assert ((kept[in_range] >= 1) & (kept[in_range] <= 2)).all()
    assert (exponent[largest == 0] == 0).all()
    return halves, exponent


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3)))
def test_rounded_rows_stay_within_half_precision_of_their_largest(rows: list[list[float]]) -> None:
    _assert_within_half_precision(torch.tensor(rows, dtype=torch.float32).reshape(-1, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("spread", [0.0, 3.0, 15.0])
def test_heavy_tails_are_rounded_row_by_row(dtype: torch.dtype, spread: float) -> None:
    random = torch.Generator().manual_seed(0)
    norms = (spread * torch.randn(4096, 1, generator=random)).exp()
    rows = (torch.randn(4096, 9, generator=random) * norms).to(dtype)

    _, exponent = _assert_within_half_precision(rows)

    assert torch.equal(exponent.double(), rows.double().abs().amax(dim=1).log2().floor())


def test_ends_of_float32_are_kept() -> None:
    smallest, huge = 2.0**-149, torch.finfo(torch.float32).max
    rows = torch.tensor(
        [[smallest, 0], [5 * smallest, -smallest], [1e-40, 3e-41], [0, -0.0], [1e30, 1e-30], [huge, -1.0]]
    )

    halves, exponent = _assert_within_half_precision(rows)

    assert exponent.tolist() == [-128, -128, -128, 0, 99, 127]
    assert torch.equal(_restored(halves, exponent)[:2], rows[:2].double())


def test_values_that_are_not_finite_stay_so_and_spoil_no_other_row() -> None:
    rows = torch.ones(4, 3)
    rows[0, 1], rows[1, 0], rows[2, 2] = torch.nan, torch.inf, -torch.inf

    halves, _ = half_rows(rows)

    assert halves[0, 1].isnan()
    assert [halves[1, 0].item(), halves[2, 2].item()] == [torch.inf, -torch.inf]
    assert torch.equal(halves[3], torch.ones(3, dtype=torch.float16))


def test_rows_beyond_the_exponents_become_infinite() -> None:
    halves, _ = half_rows(torch.tensor([[2.0**128, 0], [2.0**200, 1]], dtype=torch.float64))

    assert halves[:, 0].isinf().all()


def _token(input_value: float, grad_value: float) -> tuple[Tensor, Tensor]:
    """Product of both sides of one token, restored from its stored form: float64 [1, 2]; and the exponent."""
    inputs, exponent = half_rows(torch.tensor([[input_value]]))
    output_grads, exponent = half_output_grads(torch.tensor([[grad_value, 0.25 * grad_value]]), exponent)
    return _restored(inputs.double() * output_grads.double(), exponent), exponent


@pytest.mark.parametrize(
    ("input_value", "grad_value", "exponent"),
    [
        (3.0, -5.0, 3),
        (1e30, 1e-30, -1),
        (1e30, 3e7, 123),
        (2.0**-149, 2.0**20, -108),
        (2.0**-64, 2.0**-64, -128),
        (2.0**-70, 1.75 * 2.0**-70, -128),
        (2.0**100, 2.0**27, 127),
    ],
)
def test_exponents_of_both_sides_add(input_value: float, grad_value: float, exponent: int) -> None:
    product, kept = _token(input_value, grad_value)

    expected = torch.tensor([[1, 0.25]], dtype=torch.float64) * input_value * grad_value
    torch.testing.assert_close(product, expected, rtol=2**-10, atol=0)
    assert kept.item() == exponent


def test_gradients_below_the_exponents_fade_as_in_float32() -> None:
    fading, _ = _token(2.0**-75, 1.1 * 2.0**-75)
    gone, exponent = _token(2.0**-80, 2.0**-80)

    assert (fading - torch.tensor([[1.1, 0.275]]).double() * 2.0**-150).abs().max() <= 2.0**-153
    assert fading[0, 0] > 0
    assert (gone == 0).all()
    assert exponent.item() == -128


def test_a_zero_gradient_never_has_the_largest_exponent_of_its_module() -> None:
    _, exponent = half_rows(torch.full((2, 3), 64.0))
    output_grads, exponent = half_output_grads(torch.tensor([[0.0], [1e-9]]), exponent)

    assert exponent.tolist() == [-128, 6 - 30]
    assert output_grads[0] == 0
