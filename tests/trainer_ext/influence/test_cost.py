"""The cost model: what it predicts, and that it takes the least."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer_ext.influence.cost import Rates, Shape, choose, measured_rates, predicted_seconds

RATES = Rates(product=1e12, product64=1e11, factor=1e11, copy=1e11, element=8, step=0.0, latency=1e-6)
SIDES = st.integers(1, 300)


@given(st.integers(1, 10**6), SIDES, SIDES, st.integers(1, 100), st.booleans())
def test_the_choice_is_the_least_of_what_is_predicted(rows: int, large: int, small: int, n: int, dense: bool) -> None:
    shape = Shape(rows, large, small, n, 1e-6, dense)

    choice = choose(shape, RATES)

    assert choice.predicted == predicted_seconds(shape, RATES)
    assert min(choice.predicted.values()) == choice.predicted[choice.route] > 0


@given(st.integers(1, 10**6), SIDES, SIDES)
def test_more_rows_never_cost_less(rows: int, large: int, small: int) -> None:
    few, many = (predicted_seconds(Shape(count, large, small, 8, 1e-6), RATES) for count in (rows, 2 * rows))

    assert all(many[route] >= few[route] for route in few)


def test_few_rows_go_the_dual_way_and_many_the_direct_one() -> None:
    assert choose(Shape(50, 60, 50, 16, 1e-12), RATES).route == "dual"
    assert choose(Shape(10**6, 24, 20, 96, 1e-12), RATES).route == "direct"
    assert choose(Shape(10**5, 400, 300, 1, 1e-3), RATES).route == "pcg"


def test_rates_are_measured_once_and_rounded() -> None:
    rates = measured_rates(torch.device("cpu"), "fp64")

    assert measured_rates(torch.device("cpu"), "fp64") is rates
    for value in (rates.product, rates.product64, rates.factor, rates.copy, rates.latency):
        steps = 2 * torch.log2(torch.tensor(value, dtype=torch.float64))
        torch.testing.assert_close(steps, steps.round())
