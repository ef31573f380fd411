"""Rows that are ready for work are the factors' gradients: in order, in type, and under one unit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.influence.materialised import in_full, normal
from trainer_ext.influence import InfluenceConfig, ModuleFactors, Responses
from trainer_ext.influence.layout import Layout, layout_of
from trainer_ext.influence.precision import Precision
from trainer_ext.influence.staging import Staged, staged
from trainer_ext.influence.storage import half_output_grads, half_rows

PRECISIONS: tuple[Precision, ...] = ("fp64", "fp32", "fast")
ROUNDING = {"fp64": 1e-12, "fp32": 3e-7, "fast": 3e-3}
"""Of a token's gradient, relative to its length."""
RESPONSES = Responses(torch.tensor([0, 0, 1]), torch.tensor([True, False, True]), torch.ones(3))
TOGETHER = torch.tensor([1, 1, 2, 0, 0, 0])
APART = torch.tensor([1, 0, 2, 0, 1, 0])
"""Response 2 is a prompt without contrast."""


def _layout(response: Tensor = TOGETHER) -> Layout:
    return layout_of(response, RESPONSES, InfluenceConfig(), torch.device("cpu"))


def _factors(
    k_in: int = 5, k_out: int = 3, response: Tensor = TOGETHER, size: float = 1.0, dtype: torch.dtype = torch.float64
) -> ModuleFactors:
    """Token norms over four orders of magnitude."""
    norms = torch.logspace(-2, 2, len(response), dtype=torch.float64)[:, None]
    inputs, grads = normal(len(response), k_in) * norms, size * normal(len(response), k_out, seed=1)
    return ModuleFactors(inputs.to(dtype), grads.to(dtype), response)


def _stored(factors: ModuleFactors) -> ModuleFactors:
    """As `storage.py` keeps them with `fast`."""
    inputs, exponent = half_rows(factors.inputs)
    grads, exponent = half_output_grads(factors.output_grads, exponent)
    return ModuleFactors(inputs, grads, factors.response, exponent)


def _staged(factors: ModuleFactors, precision: Precision, layout: Layout | None = None, **options: Any) -> Staged:
    return staged(factors, layout or _layout(factors.response), InfluenceConfig(**options), precision)


def _true(factors: ModuleFactors) -> Tensor:
    """Gradients in full, float64 [T, k_large, k_small]."""
    power = torch.zeros(factors.tokens) if factors.exponent is None else factors.exponent
    both = (factors.inputs.double(), factors.output_grads.double() * torch.exp2(power.double())[:, None])
    large, small = both if factors.k_in >= factors.k_out else both[::-1]
    return torch.einsum("tb,ta->tba", large, small)


def _assert_same(ready: Staged, gradients: Tensor, rounding: float) -> None:
    """The unit times each row is the gradient, within a rounding relative to each token's length."""
    error = (ready.unit * in_full(ready.rows) - gradients.flatten(1)).norm(dim=1)
    assert (error <= rounding * gradients.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("k_in", "k_out"), [(5, 3), (3, 5), (4, 4)])
def test_rows_are_the_gradients_with_the_longer_side_first(k_in: int, k_out: int, precision: Precision) -> None:
    factors = _factors(k_in, k_out)

    ready = _staged(factors, precision)

    assert ready.rows.sides == (max(k_in, k_out), min(k_in, k_out))
    _assert_same(ready, _true(factors), ROUNDING[precision])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stored", [False, True])
def test_rows_stand_in_the_order_of_work(precision: Precision, stored: bool) -> None:
    factors, layout = _factors(response=APART), _layout(APART)
    factors = _stored(factors) if stored else factors

    ready = _staged(factors, precision, layout)

    assert layout.order is not None
    assert sorted(layout.order.tolist()) == [0, 1, 3, 4, 5]
    assert torch.equal(ready.rows.owner, layout.owner)
    _assert_same(ready, _true(factors)[layout.order], ROUNDING[precision])


@pytest.mark.parametrize(
    ("precision", "kept", "work"),
    [
        ("fp64", torch.float64, torch.float64),
        ("fp32", torch.float32, torch.float64),
        ("fast", torch.float32, torch.float32),
    ],
)
def test_types_on_a_cpu(precision: Precision, kept: torch.dtype, work: torch.dtype) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        ready = _staged(_factors(dtype=dtype), precision)

        assert (ready.rows.large.dtype, ready.rows.small.dtype, ready.rows.work) == (kept, kept, work)
        assert ready.half is None


@pytest.mark.parametrize("precision", PRECISIONS)
def test_stored_factors_lose_nothing_more(precision: Precision) -> None:
    factors = _stored(_factors())

    ready = _staged(factors, precision)

    _assert_same(ready, _true(factors), {"fp64": 1e-12, "fp32": 3e-7, "fast": 3e-7}[precision])


def test_fast_rounds_on_a_cpu_as_the_store_does() -> None:
    factors = _factors(dtype=torch.float32)

    ready, stored = _staged(factors, "fast"), _staged(_stored(factors), "fast")

    assert torch.equal(ready.unit, stored.unit)
    assert torch.equal(in_full(ready.rows), in_full(stored.rows))


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e15])
@pytest.mark.parametrize("stored", [False, True])
def test_fast_takes_the_largest_power_out_as_the_unit(size: float, stored: bool) -> None:
    factors = _factors(size=size)

    ready = _staged(_stored(factors) if stored else factors, "fast")

    largest = in_full(ready.rows).abs().amax()
    assert 0.25 < float(largest) < 4
    assert float(ready.unit.log2() % 1) == 0
    _assert_same(ready, _true(factors), ROUNDING["fast"])


def test_other_precisions_have_no_unit() -> None:
    for precision in ("fp64", "fp32"):
        assert float(_staged(_factors(size=1e15), precision).unit) == 1


@pytest.mark.parametrize("stored", [False, True])
def test_a_token_without_gradient_does_not_set_the_unit(stored: bool) -> None:
    factors = _factors(size=1e-20, dtype=torch.float32)
    factors.output_grads[3] = 0
    silent = _stored(factors) if stored else factors

    ready = _staged(silent, "fast")

    assert not in_full(ready.rows)[3].any()
    assert float(in_full(ready.rows).abs().amax()) > 0.25


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stored", [False, True])
def test_a_module_without_any_gradient_has_a_usable_unit(precision: Precision, stored: bool) -> None:
    factors = _factors(dtype=torch.float32)
    factors.inputs[:] = 0

    ready = _staged(_stored(factors) if stored else factors, precision)

    assert not in_full(ready.rows).any()
    assert float(1 / ready.unit.square()) < float("inf")
    assert float(ready.unit) > 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_token_at_all_is_staged_as_nothing(precision: Precision) -> None:
    factors = ModuleFactors(torch.zeros(0, 5), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))

    ready = _staged(factors, precision)

    assert (ready.rows.count, ready.rows.sides, float(ready.unit)) == (0, (5, 3), 1.0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stored", [False, True])
def test_unit_norm_of_identity_makes_every_gradient_one_long(precision: Precision, stored: bool) -> None:
    factors = _factors(dtype=torch.float32)
    factors.inputs[2] = 0
    given = _stored(factors) if stored else factors

    ready = _staged(given, precision, token_unit_norm=True, hessian_mode="identity")

    gradients = _true(given)
    lengths = gradients.flatten(1).norm(dim=1)
    _assert_same(ready, gradients / torch.where(lengths > 0, lengths, 1.0)[:, None, None], ROUNDING[precision])
    own = (ready.unit * in_full(ready.rows)).norm(dim=1)
    torch.testing.assert_close(own, (lengths > 0).double(), rtol=ROUNDING[precision], atol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_unit_norm_of_inverse_leaves_gradients_as_they_are(precision: Precision) -> None:
    factors = _factors()

    ready = _staged(factors, precision, token_unit_norm=True, hessian_mode="inverse")

    _assert_same(ready, _true(factors), ROUNDING[precision])
