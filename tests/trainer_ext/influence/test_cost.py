"""The cost model: what it predicts, that it takes the least, and that noise in its rates does not matter."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer_ext.influence.cost import Choice, Rates, Shape, choose, measured_rates, predicted_seconds

ROUTES = {"direct", "dual", "pcg"}
RATES = Rates(product=1e12, product64=1e11, factor=1e11, copy=1e11, element=8, step=0.0, latency=1e-6)
POWERS = st.floats(8, 15).map(lambda power: 10.0**power)
"""FLOP/s and bytes/s of anything from a laptop to several GPUs."""


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    large, small = sorted((draw(st.integers(1, 300)), draw(st.integers(1, 300))), reverse=True)
    return Shape(
        rows=draw(st.integers(1, 10**7)),
        large=large,
        small=small,
        right_hand_sides=draw(st.integers(1, 2000)),
        tolerance=10.0 ** draw(st.integers(-14, -1)),
        dense=draw(st.booleans()),
    )


@st.composite
def rates(draw: st.DrawFn) -> Rates:
    product, product64, factor, copy = (draw(POWERS) for _ in range(4))
    step = draw(st.sampled_from([0.0, 1e-5, 1e-3]))
    latency = 10.0 ** draw(st.floats(-7, -4))
    return Rates(product, product64, factor, copy, draw(st.sampled_from([2, 4, 8])), step, latency)


def _rounded(value: float) -> float:
    """To a power of the square root of two."""
    return 2 ** (round(2 * math.log2(value)) / 2) if value else value


@given(shapes(), rates())
def test_the_choice_is_the_least_of_what_is_predicted(shape: Shape, device: Rates) -> None:
    choice = choose(shape, device)

    assert choice.predicted == predicted_seconds(shape, device)
    assert choice.predicted.keys() == ROUTES
    assert choice.predicted[choice.route] == min(choice.predicted.values())


@given(shapes(), rates())
def test_predictions_are_positive_and_finite(shape: Shape, device: Rates) -> None:
    assert all(0 < seconds < math.inf for seconds in predicted_seconds(shape, device).values())


@settings(max_examples=300)
@given(shapes(), rates(), st.sampled_from(["rows", "large", "small", "right_hand_sides"]), st.integers(1, 5))
def test_more_of_anything_never_costs_less(shape: Shape, device: Rates, what: str, times: int) -> None:
    more = dataclasses.replace(shape, **{what: times * getattr(shape, what)})

    few, many = predicted_seconds(shape, device), predicted_seconds(more, device)

    assert all(many[route] >= few[route] for route in ROUTES)


@given(shapes(), rates())
def test_a_smaller_tolerance_costs_the_iteration_alone(shape: Shape, device: Rates) -> None:
    closer = dataclasses.replace(shape, tolerance=shape.tolerance / 100)

    loose, strict = predicted_seconds(shape, device), predicted_seconds(closer, device)

    assert strict["pcg"] >= loose["pcg"]
    assert (strict["direct"], strict["dual"]) == (loose["direct"], loose["dual"])


@given(shapes(), rates(), st.sampled_from(["product", "product64", "factor", "copy"]))
def test_a_faster_device_is_never_predicted_to_be_slower(shape: Shape, device: Rates, what: str) -> None:
    faster = dataclasses.replace(device, **{what: 2 * getattr(device, what)})

    assert all(predicted_seconds(shape, faster)[r] <= predicted_seconds(shape, device)[r] for r in ROUTES)


@settings(max_examples=300)
@given(shapes(), rates())
def test_rounding_the_rates_costs_no_more_than_the_square_root_of_two(shape: Shape, device: Rates) -> None:
    values = {field.name: getattr(device, field.name) for field in dataclasses.fields(device)}
    coarse = Rates(**{name: value if name == "element" else _rounded(value) for name, value in values.items()})

    chosen = choose(shape, coarse).route

    exact = predicted_seconds(shape, device)
    assert exact[chosen] <= 1.001 * math.sqrt(2) * min(exact.values())


@given(shapes(), rates(), st.floats(2**-0.24, 2**0.24))
def test_noise_within_a_rounding_step_changes_no_choice(shape: Shape, device: Rates, noise: float) -> None:
    def measured(factor: float) -> Choice:
        values = {name: getattr(device, name) for name in ("product", "product64", "factor", "copy", "latency")}
        # rates in the middle of a step, and measured a little off
        return choose(
            shape, dataclasses.replace(device, **{k: _rounded(factor * _rounded(v)) for k, v in values.items()})
        )

    assert measured(noise) == measured(1.0)


@pytest.mark.parametrize(
    ("shape", "route"),
    [
        (Shape(50, 60, 50, 16, 1e-12), "dual"),
        (Shape(10**6, 24, 20, 96, 1e-12), "direct"),
        (Shape(10**5, 400, 300, 1, 1e-3), "pcg"),
        (Shape(96, 280, 48, 96, 1e-12, dense=True), "dual"),
    ],
)
def test_each_route_has_its_place(shape: Shape, route: str) -> None:
    assert choose(shape, RATES).route == route


def test_a_pool_on_the_tensor_cores_is_paid_by_its_steps() -> None:
    shape = Shape(1000, 64, 32, 16, 1e-3)
    slow, fast = (dataclasses.replace(RATES, step=step) for step in (1e-2, 1e-5))

    difference = predicted_seconds(shape, slow)["direct"] - predicted_seconds(shape, fast)["direct"]

    assert difference == pytest.approx(2048 / 128 * (1e-2 - 1e-5))
    dense = dataclasses.replace(shape, dense=True)
    assert predicted_seconds(dense, slow) == predicted_seconds(dense, fast)


@pytest.mark.parametrize("precision", ["fp64", "fp32", "fast"])
def test_rates_are_measured_once_and_rounded(precision: str) -> None:
    cpu = torch.device("cpu")
    measured = measured_rates(cpu, precision)  # type: ignore[arg-type]

    assert measured_rates(cpu, precision) is measured  # type: ignore[arg-type]
    assert measured.element == (4 if precision == "fast" else 8)
    assert measured.step == 0
    for value in (measured.product, measured.product64, measured.factor, measured.copy, measured.latency):
        assert value > 0
        assert math.isclose(value, _rounded(value), rel_tol=1e-12)
