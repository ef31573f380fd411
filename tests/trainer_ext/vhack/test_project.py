"""What each mode takes out of a vector, and the figures about it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer_ext.vhack.project import Directions, components, magnitudes, removed, shares, take_out

K, N = 3, 40


def directions(seed: int = 0) -> Directions:
    draw = torch.Generator().manual_seed(seed)
    return Directions(
        {name: torch.linalg.qr(torch.randn(N, K, generator=draw))[0].T.contiguous() for name in ("a", "b")}
    )


def vectors(seed: int = 1) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(5, 8, generator=draw) for name in ("a", "b", "without")}


def projected(mode: str, overshoot: float = 1.0, preserve: bool = False) -> tuple[Directions, dict[str, Tensor]]:
    rows, found = directions(), vectors()
    before = components(found, rows)
    taken = removed(before.c, mode, overshoot)  # type: ignore[arg-type]
    take_out(found, rows, taken, magnitudes(before, taken, rows.owner) if preserve else None)
    return rows, found


def coefficients(rows: Directions, of: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: axes.double() @ of[name].flatten().double() for name, axes in rows.by_module.items()}


EXPECTED = {
    "one_sided": lambda c: c.clamp(max=0),
    "route": lambda c: c.clamp(max=0),
    "no_gate": lambda c: 0 * c,
    "reverse": lambda c: -c,
    "measure": lambda c: c,
}


@pytest.mark.parametrize("mode", EXPECTED)
def test_coefficients_after_each_mode(mode: str) -> None:
    rows, found = projected(mode)
    was, now = coefficients(rows, vectors()), coefficients(rows, found)
    for name in rows.by_module:
        assert torch.allclose(now[name], EXPECTED[mode](was[name]), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_vectors_may_be_of_any_float_and_need_not_be_contiguous(dtype: torch.dtype) -> None:
    rows, plain = directions(), {name: vector.to(dtype) for name, vector in vectors().items()}
    turned = {name: vector.T.contiguous().T for name, vector in plain.items()}
    taken = removed(components(plain, rows).c, "no_gate")
    assert torch.equal(components(turned, rows).c, components(plain, rows).c)
    for of in (plain, turned):
        take_out(of, rows, taken)
    left = coefficients(rows, turned)
    for name in rows.by_module:
        assert float(left[name].norm() / turned[name].double().norm()) < 4 * torch.finfo(dtype).eps
        assert torch.allclose(turned[name], plain[name], rtol=1e-5, atol=1e-6)
        assert turned[name].dtype == dtype


@pytest.mark.parametrize("mode", EXPECTED)
def test_what_lies_across_the_directions_and_modules_without_any_stay(mode: str) -> None:
    rows, found = projected(mode)
    for name, axes in rows.by_module.items():
        across = torch.eye(N) - axes.T @ axes
        assert torch.allclose(across @ found[name].flatten(), across @ vectors()[name].flatten(), atol=1e-5)
    assert torch.equal(found["without"], vectors()["without"])


def test_overshoot_turns_what_it_takes_out_round() -> None:
    rows, found = projected("no_gate", overshoot=1.1)
    was, now = coefficients(rows, vectors()), coefficients(rows, found)
    assert all(torch.allclose(now[name], -0.1 * was[name], atol=1e-5) for name in was)


@pytest.mark.parametrize("mode", ["one_sided", "no_gate", "reverse"])
def test_preserved_magnitude_changes_the_direction_alone(mode: str) -> None:
    (rows, kept), (_, plain) = projected(mode, preserve=True), projected(mode)
    for name in rows.by_module:
        assert float(kept[name].norm()) == pytest.approx(float(vectors()[name].norm()), rel=1e-5)
        assert torch.allclose(kept[name] / kept[name].norm(), plain[name] / plain[name].norm(), atol=1e-6)


def test_a_vector_that_lies_in_the_directions_alone_is_not_blown_up_to_its_former_length() -> None:
    rows = directions()
    found = {name: (2 * axes[0]).clone() for name, axes in rows.by_module.items()}
    before = components(found, rows)
    taken = removed(before.c, "no_gate")
    take_out(found, rows, taken, magnitudes(before, taken, rows.owner))
    assert all(float(vector.norm()) < 1e-5 for vector in found.values())


def test_shares_are_lengths_toward_the_hack_over_lengths_before_and_after() -> None:
    rows, found = projected("one_sided")
    was = vectors()
    expected = [coefficients(rows, was)[n].clamp(min=0).norm() / was[n].norm() for n in rows.by_module]
    both = shares(components(was, rows), components(found, rows), rows.owner)
    assert both.cin == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)
    assert both.cout < 1e-6
    assert both.fired == 1.0


def test_axes_away_from_the_hack_do_not_cancel_those_toward_it() -> None:
    rows = Directions({"m": torch.eye(2, 3)})
    found = {"m": torch.tensor([3.0, -4.0, 0.0])}
    same = components(found, rows)
    assert shares(same, same, rows.owner).cin == pytest.approx(0.6)


def test_a_module_whose_gradient_points_nowhere_near_the_hack_did_not_fire() -> None:
    rows = Directions({"m": torch.eye(1, 3), "n": torch.eye(1, 3), "zero": torch.eye(1, 3)})
    found = {"m": torch.tensor([-1.0, 2.0, 0.0]), "n": torch.tensor([1.0, 0.0, 0.0]), "zero": torch.zeros(3)}
    same = components(found, rows)
    both = shares(same, same, rows.owner)
    assert (both.fired, both.cin) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_nothing_to_project_and_modules_without_gradient_are_no_errors() -> None:
    none = Directions({})
    empty = components({}, none)
    take_out({}, none, empty.c)
    assert shares(empty, empty, none.owner).cin == 0.0
    rows = directions()
    lacking = components({"a": vectors()["a"]}, rows)
    assert lacking.squares.tolist() == [pytest.approx(float(vectors()["a"].square().sum())), 0.0]
    take_out({"a": vectors()["a"]}, rows, lacking.c)


def test_an_unknown_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match="mode: must be one of one_sided"):
        removed(torch.zeros(1), "twosided")  # type: ignore[arg-type]
