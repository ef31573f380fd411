"""Two float16 numbers under a power of two hold 21 bits of the largest of a float32 operand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer_ext.influence.split import Split, split, times_power

NORMAL = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
MATRICES = st.lists(st.lists(NORMAL, min_size=3, max_size=3), min_size=1, max_size=4).map(torch.tensor)


def _joined(halves: Split) -> Tensor:
    return torch.exp2(halves.power.double()) * (halves.high.double() + halves.low.double())


@settings(deadline=None)
@given(MATRICES, st.sampled_from([(0,), (1,), (0, 1)]))
def test_the_halves_add_up_to_22_bits_of_the_largest(values: Tensor, dim: tuple[int, ...]) -> None:
    halves = split(values, dim)

    largest = values.double().abs().amax(dim=dim, keepdim=True)
    assert (halves.high.dtype, halves.low.dtype) == (torch.float16, torch.float16)
    assert halves.power.shape == largest.shape
    assert float(halves.high.abs().max()) <= 1
    assert ((_joined(halves) - values.double()).abs() <= 2.0**-22 * largest).all()


def test_the_upper_half_alone_is_not_enough() -> None:
    values = torch.tensor([[1.0, 1 / 3]])

    halves = split(values, (0, 1))

    assert float((torch.exp2(halves.power.double()) * halves.high.double() - values.double()).abs().max()) > 2.0**-15


def test_float64_is_split_as_well() -> None:
    values = torch.linspace(-1e-60, 1e-61, 50, dtype=torch.float64)[None]

    halves = split(values, (0, 1))

    assert float((_joined(halves) - values).abs().max()) <= 2.0**-22 * 1e-60


def test_zeros_stay_zero() -> None:
    halves = split(torch.zeros(2, 3), (1,))

    assert not _joined(halves).any()


def test_each_row_may_have_its_own_power() -> None:
    values = torch.tensor([[1.0, -3.0], [1e-20, 2e-20]])

    halves = split(values, (1,))

    torch.testing.assert_close(_joined(halves), values.double(), rtol=2.0**-21, atol=0)
    assert (halves.power[0] != halves.power[1]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("power", [-9, 0, 4])
def test_a_power_of_two_changes_no_digit_and_no_type(dtype: torch.dtype, power: int) -> None:
    values = torch.tensor([1.5, -0.375, 3.0], dtype=dtype)
    expected = (values.double() * 2.0**power).to(dtype)

    for given_power in (power, torch.tensor(power, dtype=torch.int32), torch.full((3,), power, dtype=torch.int32)):
        scaled = times_power(values, given_power)
        assert scaled.dtype == dtype
        assert torch.equal(scaled, expected)


def test_powers_of_float64_reach_beyond_float32() -> None:
    values = torch.ones(2, dtype=torch.float64)

    scaled = times_power(values, torch.tensor([-512, 300], dtype=torch.int32))

    assert scaled.tolist() == [2.0**-512, 2.0**300]
