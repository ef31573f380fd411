"""Coordinates in the SVD basis are what an adapter on singular values would see."""

from __future__ import annotations

import pytest
import torch

from tests.trainer_ext.vhack.models import SmallModel
from trainer_ext.vhack.basis import Basis, basis_hash, coordinates, expanded, linear_modules, svd_basis, weight_digest

WEIGHT = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_coordinates_are_the_gradient_of_an_adapter_on_singular_values() -> None:
    basis, x = svd_basis(WEIGHT), torch.randn(5, dtype=torch.float64)
    weight = WEIGHT.clone().requires_grad_()
    torch.tanh(weight @ x).sum().backward()
    amounts = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    torch.tanh(WEIGHT @ x + basis.u @ (amounts * (basis.vh @ x))).sum().backward()
    assert weight.grad is not None
    assert amounts.grad is not None
    assert torch.allclose(coordinates(weight.grad, basis), amounts.grad, rtol=1e-12, atol=0)


def test_coordinates_do_not_depend_on_the_signs_of_singular_pairs() -> None:
    basis, gradient = svd_basis(WEIGHT), torch.randn(7, 5)
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    turned = Basis(basis.u * signs, basis.vh * signs[:, None])
    assert torch.allclose(coordinates(gradient, basis), coordinates(gradient, turned), rtol=1e-12, atol=1e-15)


def test_expanded_directions_are_orthonormal_changes_with_the_same_products() -> None:
    basis = svd_basis(WEIGHT)
    v = torch.linalg.qr(torch.randn(5, 3, dtype=torch.float64))[0].T
    changes, gradient = expanded(v, basis), torch.randn(7, 5, dtype=torch.float64)
    flat = changes.flatten(1)
    assert torch.allclose(flat @ flat.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(flat @ gradient.flatten(), v @ coordinates(gradient, basis), rtol=1e-10)


def test_the_rounding_of_a_files_dtype_is_taken_back() -> None:
    v = torch.linalg.qr(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)))[0].T.bfloat16()
    flat = expanded(v, svd_basis(WEIGHT)).flatten(1)
    assert torch.allclose(flat @ flat.T, torch.eye(3, dtype=torch.float64), atol=1e-12)


def test_axes_that_extraction_made_zero_stay_zero() -> None:
    v = torch.eye(3, 5)
    v[1] = 0
    assert expanded(v, svd_basis(WEIGHT)).flatten(1).norm(dim=1).tolist() == [pytest.approx(1), 0, pytest.approx(1)]


def test_rows_that_are_no_directions_are_refused() -> None:
    with pytest.raises(ValueError, match="not orthonormal"):
        expanded(torch.ones(2, 5), svd_basis(WEIGHT))


def test_the_hash_tells_weights_apart_and_not_the_order_of_modules() -> None:
    one, other = weight_digest(WEIGHT), weight_digest(WEIGHT + 1e-12)
    assert one != other
    assert one != weight_digest(WEIGHT.T)
    assert (
        basis_hash({"a": one, "b": other}) == basis_hash({"b": other, "a": one}) != basis_hash({"a": other, "b": one})
    )
    assert weight_digest(WEIGHT.bfloat16()) == weight_digest(WEIGHT.bfloat16())


def test_vectors_of_a_singular_value_of_zero_take_no_part() -> None:
    thin = torch.outer(torch.arange(1.0, 8), torch.arange(1.0, 6))
    basis, gradient = svd_basis(thin), torch.ones(7, 5, dtype=torch.float64)
    assert int((basis.u.norm(dim=0) > 0).sum()) == 1
    assert (coordinates(gradient, basis)[1:] == 0).all()
    assert not svd_basis(torch.zeros(3, 4)).u.any()


def test_of_modules_that_share_a_weight_one_takes_part() -> None:
    model = SmallModel()
    model.add_module("tied_proj", model.up_proj)
    model.add_module("shared_proj", torch.nn.Linear(8, 16, bias=False))
    model.shared_proj.weight = model.up_proj.weight
    assert list(linear_modules(model, ("proj",))) == ["up_proj", "down_proj"]


def test_modules_take_part_by_a_part_of_their_name() -> None:
    assert list(linear_modules(SmallModel(), ("proj",))) == ["up_proj", "down_proj"]
    with pytest.raises(ValueError, match="no linear module's name contains one of nowhere"):
        linear_modules(SmallModel(), ("nowhere",))
