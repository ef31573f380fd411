"""Optimizer steps that are projected: what is left along the directions, what Adam brings back, what RL learns."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer_ext.vhack import Projector, VhackConfig, weight_directions
from trainer_ext.vhack.singular_values import SingularValues

SHAPES = {"a": (24, 10), "b": (12, 20), "without": (5, 5)}


def weights(seed: int = 0) -> dict[str, nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    return {name: nn.Parameter(0.1 * torch.randn(shape, generator=draw)) for name, shape in SHAPES.items()}


def v(k: int = 3) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    ranks = {"a": 10, "b": 12}
    return {n: torch.linalg.qr(torch.randn(r, k, generator=draw))[0].T.contiguous() for n, r in ranks.items()}


def config(**changes: Any) -> VhackConfig:
    return VhackConfig(file="d", **changes)


def set_gradients(of: Mapping[str, nn.Parameter], seed: int = 2) -> None:
    """Gradients whose coordinates differ a hundredfold in scale, which is what Adam levels out."""
    draw = torch.Generator().manual_seed(seed)
    for weight in of.values():
        scale = torch.logspace(0, -2, weight[0].numel())
        weight.grad = torch.randn(weight.shape, generator=draw) * scale


def steps(optimizer_type: Any, changes: dict[str, Any], count: int = 3) -> tuple[Any, dict[str, Tensor], Projector]:
    """(directions, the last step of each weight, the projector) of some steps."""
    trained = weights()
    directions = weight_directions(trained, v())
    projector = Projector(trained, directions, config(**changes))
    optimizer = optimizer_type(trained.values(), lr=1e-2)
    before: dict[str, Tensor] = {}
    with projector.around(optimizer):
        for number in range(count):
            before = {name: weight.detach().clone() for name, weight in trained.items()}
            set_gradients(trained, seed=number)
            optimizer.step()
    return directions, {name: weight.detach() - before[name] for name, weight in trained.items()}, projector


def along(directions: Any, step: Mapping[str, Tensor], toward: bool = False) -> float:
    """|V step| / |step|, the largest of all modules; with `toward` the part alone that goes toward the hack."""
    found = []
    for name, rows in directions.by_module.items():
        c = -(rows.double() @ step[name].double().flatten())
        found.append(float((c.clamp(min=0) if toward else c).norm() / step[name].double().norm()))
    return max(found)


def test_adam_brings_back_what_was_projected_out_of_the_gradient_and_not_what_of_the_update() -> None:
    directions, step, _ = steps(torch.optim.AdamW, {"mode": "no_gate", "form": "gradient"})
    assert along(directions, step) > 0.2
    directions, step, _ = steps(torch.optim.AdamW, {"mode": "no_gate", "form": "update"})
    assert along(directions, step) < 1e-6


@pytest.mark.parametrize("variant", [{"foreach": True}, {"fused": True}, {"amsgrad": True}, {"maximize": True}])
def test_an_update_is_projected_whatever_makes_it_and_with_its_decay(variant: dict[str, Any]) -> None:
    make = functools.partial(torch.optim.AdamW, weight_decay=0.1, **variant)
    directions, step, _ = steps(make, {"mode": "no_gate", "form": "update"}, count=1)
    assert along(directions, step) < 1e-6
    _, plain, _ = steps(make, {"mode": "measure", "form": "update"}, count=1)
    for name, rows in directions.by_module.items():
        flat = plain[name].flatten()
        assert torch.allclose(step[name].flatten(), flat - rows.T @ (rows @ flat), atol=1e-7)


def test_plain_descent_brings_nothing_back() -> None:
    directions, step, _ = steps(torch.optim.SGD, {"mode": "no_gate", "form": "gradient"})
    assert along(directions, step) < 1e-5


@pytest.mark.parametrize("overrides", [{}, {"preserve_magnitude": True}])
def test_a_one_sided_update_never_goes_toward_the_hack_and_may_go_away_from_it(overrides: dict[str, Any]) -> None:
    directions, step, projector = steps(torch.optim.AdamW, {"form": "update", **overrides})
    assert along(directions, step, toward=True) < 1e-6
    assert along(directions, step) > 0.02
    metrics = projector.take_metrics()
    assert metrics["cin"] > 0.02
    assert metrics["cout"] < 1e-6
    assert 0 < metrics["fired"] <= 1
    assert projector.take_metrics() == {}


def test_update_of_preserved_magnitude_is_as_long_as_adams() -> None:
    _, plain, _ = steps(torch.optim.AdamW, {"mode": "measure"}, count=1)
    _, kept, _ = steps(torch.optim.AdamW, {"form": "update", "preserve_magnitude": True}, count=1)
    assert all(float(kept[name].norm()) == pytest.approx(float(plain[name].norm()), rel=1e-4) for name in kept)


@pytest.mark.parametrize("form", ["gradient", "update"])
def test_measuring_changes_nothing(form: str) -> None:
    _, measured, projector = steps(torch.optim.AdamW, {"mode": "measure", "form": form})
    trained = weights()
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    for number in range(3):
        before = {name: weight.detach().clone() for name, weight in trained.items()}
        set_gradients(trained, seed=number)
        optimizer.step()
    assert all(torch.equal(measured[name], trained[name].detach() - before[name]) for name in trained)
    metrics = projector.take_metrics()
    assert metrics["cin"] == pytest.approx(metrics["cout"])


@pytest.mark.parametrize("form", ["gradient", "update"])
def test_weights_without_directions_take_the_optimizers_own_step(form: str) -> None:
    _, step, _ = steps(torch.optim.AdamW, {"form": form})
    _, plain, _ = steps(torch.optim.AdamW, {"mode": "measure"})
    assert torch.equal(step["without"], plain["without"])


def test_steps_are_the_optimizers_own_again_afterwards_and_after_an_error() -> None:
    trained = weights()
    projector = Projector(trained, weight_directions(trained, v()), config())
    optimizer = torch.optim.SGD(trained.values(), lr=1.0)
    with pytest.raises(RuntimeError, match="inside"), projector.around(optimizer):
        raise RuntimeError("inside")
    set_gradients(trained)
    before, gradient = trained["a"].detach().clone(), trained["a"].grad
    optimizer.step()
    assert torch.equal(trained["a"].detach(), before - gradient)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("inside", ["singular values", "projection"])
def test_a_scheduler_of_the_learning_rate_notices_nothing(inside: str) -> None:
    trained = {"a": weights()["a"]}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
    projector = Projector(trained, weight_directions(trained, {"a": v()["a"]}), config())
    values = SingularValues(trained)
    with values.instead_of(optimizer) if inside == "singular values" else projector.around(optimizer):
        for number in range(2):
            set_gradients(trained, seed=number)
            optimizer.step()
            scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 3)
    if inside == "singular values":
        assert values.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 2), "that of the last step"


@pytest.mark.parametrize("form", ["gradient", "update"])
def test_without_what_was_routed_weights_are_those_that_one_sided_trains(form: str) -> None:
    def run(mode: str) -> tuple[Any, Any, Projector]:
        trained = weights()
        directions = weight_directions(trained, v())
        projector = Projector(trained, directions, config(mode=mode, form=form))
        optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0.0)
        with projector.around(optimizer):
            for number in range(4):
                set_gradients(trained, seed=number)
                optimizer.step()
        return trained, directions, projector

    (trained, directions, projector), (one_sided, _, _) = run("route"), run("one_sided")
    assert projector.routed is not None
    amounts = projector.routed.amounts.detach()
    assert bool((amounts <= 0).all())  # against the gradient, that is toward the hack
    assert float(amounts.norm()) > 1e-3
    parts = dict(zip(directions.by_module, amounts.split(directions.sizes), strict=True))
    for name, rows in directions.by_module.items():
        deployed = trained[name].detach() - (rows.T @ parts[name].float()).view_as(trained[name])
        assert torch.allclose(deployed, one_sided[name], atol=1e-6)
        assert not torch.allclose(trained[name], one_sided[name], atol=1e-4)


def test_routed_weights_follow_an_adamw_of_their_own_along_what_was_taken_out_of_the_gradient() -> None:
    trained = weights()
    directions = weight_directions(trained, v())
    projector = Projector(trained, directions, config(mode="route"))
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1)
    amounts = torch.zeros(directions.axes, dtype=torch.float64, requires_grad=True)
    own = torch.optim.AdamW([amounts], lr=1e-2, betas=(0.8, 0.95), weight_decay=0.0)
    for number in range(3):
        set_gradients(trained, seed=number)
        gradients = [rows @ trained[name].grad.flatten() for name, rows in directions.by_module.items()]  # type: ignore[union-attr]
        amounts.grad = torch.cat(gradients).clamp(min=0).double()
        own.step()
        with projector.around(optimizer):
            optimizer.step()
    assert projector.routed is not None
    assert torch.allclose(projector.routed.amounts, amounts, rtol=1e-4)


def test_routing_goes_on_from_its_state() -> None:
    def run(projector: Projector, optimizer: torch.optim.Optimizer, trained: Any, numbers: range) -> None:
        with projector.around(optimizer):
            for number in numbers:
                set_gradients(trained, seed=number)
                optimizer.step()

    def made() -> tuple[Any, Projector, torch.optim.Optimizer]:
        trained = weights()
        projector = Projector(trained, weight_directions(trained, v()), config(mode="route"))
        return trained, projector, torch.optim.AdamW(trained.values(), lr=1e-2)

    whole, projector, optimizer = made()
    run(projector, optimizer, whole, range(4))
    half, first, optimizer = made()
    run(first, optimizer, half, range(2))
    second = Projector(half, weight_directions(weights(), v()), config(mode="route"))
    assert first.routed is not None
    assert second.routed is not None
    assert projector.routed is not None
    second.routed.load_state_dict(first.routed.state_dict())
    run(second, optimizer, half, range(2, 4))
    assert torch.equal(second.routed.amounts, projector.routed.amounts)
    assert all(torch.equal(whole[name], half[name]) for name in whole)
    other = weights()
    fewer = Projector(other, weight_directions(other, v(k=1)), config(mode="route")).routed
    assert fewer is not None
    with pytest.raises(ValueError, match="routed weights of 6 directions cannot go on with 2"):
        fewer.load_state_dict(first.routed.state_dict())


def test_singular_values_train_as_an_adapter_with_frozen_weights_does() -> None:
    trained = {name: weight for name, weight in weights().items() if name in ("a", "b")}
    start = {name: weight.detach().clone() for name, weight in trained.items()}
    bases = {name: torch.linalg.svd(weight, full_matrices=False) for name, weight in start.items()}
    adapters = {name: nn.Parameter(torch.zeros(len(basis.S))) for name, basis in bases.items()}
    x = {name: torch.randn(6, shape[1], generator=torch.Generator().manual_seed(3)) for name, shape in SHAPES.items()}
    values, outer = SingularValues(trained), torch.optim.AdamW(trained.values(), lr=3e-2, betas=(0.8, 0.9))
    plain = torch.optim.AdamW(adapters.values(), lr=3e-2, betas=(0.8, 0.9), weight_decay=0.0)
    for _ in range(5):
        sum(torch.tanh(x[n] @ weight.T).square().sum() for n, weight in trained.items()).backward()  # type: ignore[union-attr]
        with values.instead_of(outer):
            outer.step()
        outer.zero_grad()
        adapted = {n: start[n] + (bases[n].U * adapters[n]) @ bases[n].Vh for n in adapters}
        plain.zero_grad()
        sum(torch.tanh(x[n] @ weight.T).square().sum() for n, weight in adapted.items()).backward()  # type: ignore[union-attr]
        plain.step()
    for name in adapters:
        assert torch.allclose(values.amounts[name], adapters[name], atol=1e-5)
        expected = start[name] + (bases[name].U * adapters[name]) @ bases[name].Vh
        assert torch.allclose(trained[name], expected, atol=1e-5)
