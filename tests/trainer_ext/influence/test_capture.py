"""Captured rows against autograd: whatever the layout of the pass, they add up to the weight gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tests.trainer_ext.influence.tiny_decoder import VOCABULARY, TinyDecoder, log_prob_sum
from trainer_ext.influence import InfluenceConfig, LinearCapture, ModuleFactors, leading_tokens, target_modules
from trainer_ext.influence.storage import Placement

EXACT = InfluenceConfig(projection_dim_factor=1)
TOKENS = torch.randint(VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(0))
EVERY_POSITION = torch.arange(TOKENS.numel())
ROW_OF_POSITION = torch.arange(3).repeat_interleave(7)


def _capture(model: nn.Module, config: InfluenceConfig = EXACT) -> dict[str, ModuleFactors]:
    with LinearCapture(model, config) as capture:
        capture.select(EVERY_POSITION, ROW_OF_POSITION)
        log_prob_sum(model(TOKENS), TOKENS).backward()
        return capture.pop()


def _assert_rows_add_up_to_weight_gradients(model: nn.Module, modules: dict[str, ModuleFactors]) -> None:
    assert len(modules) == 14
    for name, factors in modules.items():
        weight = model.get_submodule(name).weight
        torch.testing.assert_close(factors.output_grads.T @ factors.inputs, weight.grad, rtol=1e-12, atol=1e-12)


def test_rows_add_up_to_the_weight_gradients() -> None:
    model = TinyDecoder()

    modules = _capture(model)

    _assert_rows_add_up_to_weight_gradients(model, modules)
    assert torch.equal(modules["layers.0.mlp.up_proj"].response, ROW_OF_POSITION)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpointing_does_not_double_rows(reentrant: bool) -> None:
    plain, checkpointed = TinyDecoder(), TinyDecoder(checkpointing=reentrant)

    modules = _capture(checkpointed)

    _assert_rows_add_up_to_weight_gradients(checkpointed, modules)
    for name, factors in _capture(plain).items():
        torch.testing.assert_close(modules[name].inputs, factors.inputs)
        torch.testing.assert_close(modules[name].output_grads, factors.output_grads)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_what_checkpointing_runs_again_is_not_projected_again(reentrant: bool) -> None:
    plain, checkpointed = TinyDecoder(), TinyDecoder(checkpointing=reentrant)

    assert _flops_of_capture(checkpointed) == _flops_of_capture(plain) > 0


def _flops_of_capture(model: nn.Module) -> int:
    """What capturing adds to the products of a pass."""
    with FlopCounterMode(display=False) as alone:
        log_prob_sum(model(TOKENS), TOKENS).backward()
    with FlopCounterMode(display=False) as captured:
        _capture(model, InfluenceConfig(projection_dim_factor=4))
    return captured.get_total_flops() - alone.get_total_flops()


def test_packed_rows_equal_padded_ones() -> None:
    model = TinyDecoder()
    padded = _capture(model)
    packed = TOKENS.reshape(1, -1)
    positions = torch.arange(7).repeat(3)[None]
    with LinearCapture(model, EXACT) as capture:
        capture.select(EVERY_POSITION, ROW_OF_POSITION)
        logits = model(packed, positions)
        log_prob_sum(logits.reshape(3, 7, -1), TOKENS).backward()
        modules = capture.pop()

    for name, factors in padded.items():
        torch.testing.assert_close(modules[name].inputs, factors.inputs, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(modules[name].output_grads, factors.output_grads, rtol=1e-9, atol=1e-12)


def test_micro_batches_follow_one_another() -> None:
    model = TinyDecoder()
    whole = _capture(model)
    with LinearCapture(model, EXACT) as capture:
        for row in range(3):
            capture.select(torch.arange(7), torch.full((7,), row))
            log_prob_sum(model(TOKENS[row : row + 1]), TOKENS[row : row + 1]).backward()
        modules = capture.pop()

    for name, factors in whole.items():
        assert torch.equal(modules[name].response, factors.response)
        torch.testing.assert_close(modules[name].inputs, factors.inputs)
        torch.testing.assert_close(modules[name].output_grads, factors.output_grads)


def test_only_selected_positions_are_kept_in_their_order() -> None:
    model = TinyDecoder()
    whole = _capture(model)
    positions = torch.tensor([12, 3, 20])
    with LinearCapture(model, EXACT) as capture:
        capture.select(positions, torch.tensor([5, 4, 6]))
        log_prob_sum(model(TOKENS), TOKENS).backward()
        modules = capture.pop()

    for name, factors in whole.items():
        assert torch.equal(modules[name].response, torch.tensor([5, 4, 6]))
        assert torch.equal(modules[name].inputs, factors.inputs[positions])
        assert torch.equal(modules[name].output_grads, factors.output_grads[positions])


def test_projected_rows_are_the_projection_of_the_exact_rows() -> None:
    model, config = TinyDecoder(), InfluenceConfig(projection_dim_factor=4, seed=7)
    capture = LinearCapture(model, config)

    exact, projected = _capture(model), _capture(model, config)

    for name, factors in exact.items():
        project_in, project_out = capture.projections[name]
        torch.testing.assert_close(projected[name].inputs, project_in(factors.inputs))
        torch.testing.assert_close(projected[name].output_grads, project_out(factors.output_grads))
    down = projected["layers.1.mlp.down_proj"]
    assert (down.k_in, down.k_out) == (6, 4)


@pytest.mark.parametrize("checkpointing", [None, False])
@pytest.mark.parametrize("placement", ["auto", "device", "host"])
def test_fast_precision_stores_rounded_rows(placement: Placement, checkpointing: bool | None) -> None:
    exact = _capture(TinyDecoder())
    model = TinyDecoder(checkpointing=checkpointing)
    config = InfluenceConfig(projection_dim_factor=1, precision="fast")
    with LinearCapture(model, config, placement=placement) as capture:
        for row in range(3):
            capture.select(torch.arange(7), torch.full((7,), row))
            log_prob_sum(model(TOKENS[row : row + 1]), TOKENS[row : row + 1]).backward()
        modules = capture.pop()

    for name, factors in modules.items():
        assert factors.inputs.dtype == factors.output_grads.dtype == torch.float16
        assert factors.exponent is not None
        tokens = torch.exp2(factors.exponent.double())[:, None, None] * _products(factors)
        error, size = (x.abs().amax(dim=(1, 2)) for x in (tokens - _products(exact[name]), _products(exact[name])))
        assert (error <= 1.01 * 2.0**-10 * size + 1e-15).all()


def _products(factors: ModuleFactors) -> Tensor:
    return factors.output_grads.double()[:, :, None] * factors.inputs.double()[:, None, :]


@pytest.mark.parametrize("placement", ["device", "host"])
def test_factors_can_be_taken_one_module_at_a_time(placement: Placement) -> None:
    model = TinyDecoder()
    whole = _capture(model)
    with LinearCapture(model, EXACT, placement=placement) as capture:
        capture.select(EVERY_POSITION, ROW_OF_POSITION)
        log_prob_sum(model(TOKENS), TOKENS).backward()
        stored = capture.take()
        assert {factors.tokens for factors in capture.pop().values()} == {0}

    assert torch.equal(stored.response, ROW_OF_POSITION)
    assert stored.held_bytes(on_host=placement == "host") == 8 * 21 * sum(map(sum, stored.dims().values()))
    assert list(stored.keys()) == list(whole)
    for name, factors in stored.items():
        assert torch.equal(factors.inputs, whole[name].inputs)
        assert torch.equal(factors.output_grads, whole[name].output_grads)
        assert factors.response is stored.response


def test_entering_again_forgets_what_was_not_taken() -> None:
    model = TinyDecoder()
    capture = LinearCapture(model, EXACT)
    for _ in range(2):
        with capture:
            capture.select(EVERY_POSITION, ROW_OF_POSITION)
            log_prob_sum(model(TOKENS), TOKENS).backward()

    assert {factors.tokens for factors in capture.pop().values()} == {21}


def test_passes_without_gradient_are_not_captured() -> None:
    model = TinyDecoder()
    with LinearCapture(model, EXACT) as capture:
        capture.select(EVERY_POSITION, ROW_OF_POSITION)
        with torch.no_grad():
            model(TOKENS)
        log_prob_sum(model(TOKENS), TOKENS).backward()
        modules = capture.pop()

    assert {factors.tokens for factors in modules.values()} == {21}


def test_passes_before_any_selection_or_with_an_empty_one_leave_no_rows() -> None:
    model = TinyDecoder()
    nothing = torch.empty(0, dtype=torch.int64)
    with LinearCapture(model, InfluenceConfig(projection_dim_factor=4)) as capture:
        log_prob_sum(model(TOKENS), TOKENS).backward()
        capture.select(nothing, nothing)
        log_prob_sum(model(TOKENS), TOKENS).backward()
        modules = capture.pop()

    assert len(modules) == 14
    assert {(f.tokens, f.k_in, f.k_out) for name, f in modules.items() if "down" in name} == {(0, 6, 4)}


def test_modules_without_gradient_are_left_out() -> None:
    model = TinyDecoder()
    model.embed_tokens.requires_grad_(False)
    model.embed_positions.requires_grad_(False)
    model.layers[0].requires_grad_(False)

    modules = _capture(model)

    assert {name.split(".")[1] for name in modules} == {"1"}


def test_a_pass_that_leaves_a_module_out_gives_it_zero_rows() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj, self.k_proj = nn.Linear(4, 3), nn.Linear(4, 2)

    model = Branches()
    x = torch.randn(5, 4)
    with LinearCapture(model, EXACT) as capture:
        capture.select(torch.arange(5), torch.zeros(5, dtype=torch.int64))
        model.q_proj(x).sum().backward()
        capture.select(torch.arange(5), torch.ones(5, dtype=torch.int64))
        (model.q_proj(x).sum() + model.k_proj(input=x).sum()).backward()
        modules = capture.pop()

    assert modules["k_proj"].tokens == modules["q_proj"].tokens == 10
    assert (modules["k_proj"].output_grads[:5] == 0).all()
    assert torch.equal(modules["k_proj"].inputs[5:], x)


def test_pop_forgets_and_leaving_removes_every_hook() -> None:
    model = TinyDecoder()
    capture = LinearCapture(model, EXACT)
    for _ in range(2):
        with capture:
            capture.select(EVERY_POSITION, ROW_OF_POSITION)
            log_prob_sum(model(TOKENS), TOKENS).backward()
        assert {factors.tokens for factors in capture.pop().values()} == {21}

    log_prob_sum(model(TOKENS), TOKENS).backward()

    assert not any(module._forward_hooks for module in model.modules())
    assert {factors.tokens for factors in capture.pop().values()} == {0}


def test_output_gradients_are_multiplied_by_weights_that_the_backward_pass_finds() -> None:
    model = TinyDecoder()
    plain = _capture(model)
    weights = torch.linspace(-2, 3, 21, dtype=torch.float64)
    with LinearCapture(model, EXACT) as capture:
        capture.select(EVERY_POSITION, ROW_OF_POSITION)
        logits = model(TOKENS)
        logits.register_hook(lambda _: capture.weigh(weights))
        log_prob_sum(logits, TOKENS).backward()
        weighed = capture.pop()

    for name, factors in plain.items():
        assert torch.equal(weighed[name].inputs, factors.inputs)
        torch.testing.assert_close(weighed[name].output_grads, factors.output_grads * weights[:, None])


def test_weights_belong_to_one_selection() -> None:
    model = TinyDecoder()
    with LinearCapture(model, EXACT) as capture:
        with pytest.raises(ValueError, match=r"weights: \(3,\) for 0 selected tokens"):
            capture.weigh(torch.zeros(3))
        capture.select(EVERY_POSITION, ROW_OF_POSITION)
        with pytest.raises(ValueError, match=r"weights: \(3,\) for 21 selected tokens"):
            capture.weigh(torch.zeros(3))
        capture.weigh(torch.zeros(21))
        capture.select(EVERY_POSITION, ROW_OF_POSITION)
        log_prob_sum(model(TOKENS), TOKENS).backward()
        modules = capture.pop()

    assert all((factors.output_grads != 0).any() for factors in modules.values())


@pytest.mark.parametrize("positions", [torch.tensor([20, 4]), torch.arange(20, 2, -1)])
def test_a_minority_and_a_majority_of_positions_give_the_same_rows(positions: Tensor) -> None:
    model, config = TinyDecoder(), InfluenceConfig(projection_dim_factor=4)
    whole = _capture(model, config)
    with LinearCapture(model, config) as capture:
        capture.select(positions, torch.zeros_like(positions))
        log_prob_sum(model(TOKENS), TOKENS).backward()
        modules = capture.pop()

    for name, factors in whole.items():
        torch.testing.assert_close(modules[name].inputs, factors.inputs[positions])
        torch.testing.assert_close(modules[name].output_grads, factors.output_grads[positions])


def test_capture_changes_no_gradient() -> None:
    captured, plain = TinyDecoder(), TinyDecoder()
    _capture(captured, InfluenceConfig(projection_dim_factor=4))

    log_prob_sum(plain(TOKENS), TOKENS).backward()

    for with_hooks, without in zip(captured.parameters(), plain.parameters(), strict=True):
        assert torch.equal(with_hooks.grad, without.grad)  # type: ignore[arg-type]


def test_half_precision_activations_are_projected_in_float32() -> None:
    model = TinyDecoder().to(torch.bfloat16)

    modules = _capture(model, InfluenceConfig(projection_dim_factor=4))

    assert {f.inputs.dtype for f in modules.values()} == {torch.float32}


def test_two_backward_passes_under_one_selection_are_refused() -> None:
    model = TinyDecoder()
    with LinearCapture(model, EXACT) as capture:
        capture.select(EVERY_POSITION, ROW_OF_POSITION)
        log_prob_sum(model(TOKENS), TOKENS).backward()
        with pytest.raises(RuntimeError, match=r"down_proj received a second gradient .* call select\(\) before"):
            log_prob_sum(model(TOKENS), TOKENS).backward()


def test_positions_beyond_the_pass_are_refused() -> None:
    model = TinyDecoder()
    with LinearCapture(model, EXACT) as capture:
        capture.select(torch.tensor([21]), torch.tensor([0]))
        with pytest.raises(ValueError, match=r"positions: 21 selected, but layers.0.self_attn.q_proj sees 21 tokens"):
            model(TOKENS)


@pytest.mark.parametrize(
    ("positions", "response", "message"),
    [
        (torch.tensor([0.0]), torch.tensor([0]), "positions: expected torch.int64"),
        (torch.tensor([0]), torch.tensor([[0]]), r"response: expected torch.int64 \[n\], got .* shape \(1, 1\)"),
        (torch.tensor([0, 1]), torch.tensor([0]), "differ in length: 2 and 1"),
        (torch.tensor([-1]), torch.tensor([0]), "must not be negative, got -1"),
    ],
)
def test_a_wrong_selection_is_refused(positions: Tensor, response: Tensor, message: str) -> None:
    with LinearCapture(TinyDecoder(), EXACT) as capture, pytest.raises(ValueError, match=message):
        capture.select(positions, response)


def test_target_modules_are_found_by_name() -> None:
    model = TinyDecoder()

    assert len(target_modules(model, InfluenceConfig())) == 14
    assert list(target_modules(model, InfluenceConfig(target_modules=("0.mlp",)))) == [
        "layers.0.mlp.gate_proj",
        "layers.0.mlp.up_proj",
        "layers.0.mlp.down_proj",
    ]
    with pytest.raises(ValueError, match=r"none of c_attn names one of the 15 nn.Linear modules .*layers.0.self_attn"):
        target_modules(model, InfluenceConfig(target_modules=("c_attn",)))


def test_wrapping_does_not_change_names_and_so_projections() -> None:
    wrapped = nn.ModuleDict({"_orig_mod": nn.ModuleDict({"_fsdp_wrapped_module": TinyDecoder()})})

    assert list(target_modules(wrapped, EXACT)) == list(target_modules(TinyDecoder(), EXACT))


@pytest.mark.parametrize(
    ("max_tokens", "chosen"),
    [
        (-1, [(0, 0), (0, 1), (1, 1), (1, 3), (1, 4)]),
        (2, [(0, 0), (0, 1), (1, 1), (1, 3)]),
        (1, [(0, 0), (1, 1)]),
        (99, [(0, 0), (0, 1), (1, 1), (1, 3), (1, 4)]),
    ],
)
def test_leading_tokens_are_the_first_valid_ones(max_tokens: int, chosen: list[tuple[int, int]]) -> None:
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)

    response, token = leading_tokens(mask, max_tokens)

    assert list(zip(response.tolist(), token.tolist(), strict=True)) == chosen


def test_capture_works_on_sharded_weights(tmp_path: Path) -> None:
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    plain, sharded = TinyDecoder(), TinyDecoder(checkpointing=False)
    init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        for layer in sharded.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(sharded, mesh=mesh)
        modules = _capture(sharded)
    finally:
        destroy_process_group()

    for name, factors in _capture(plain).items():
        torch.testing.assert_close(modules[name].inputs, factors.inputs)
        torch.testing.assert_close(modules[name].output_grads, factors.output_grads)
