"""Scores out of verl's own FSDP engine, against gradients that plain autograd materialises one token at a time."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import verl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu

import trainer_ext
from trainer_ext.assets import tiny_qwen2
from trainer_ext.verl_plugin.worker import InfluenceWorker, score_rows

CONF = Path(trainer_ext.__file__).parent / "conf"
INFLUENCE = {
    "hessian_mode": "identity",
    "contrastive_agg": "sum",
    "exclude_self_response": True,
    "projection_dim_factor": 1,
    "precision": "fp64",
}
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PROMPTS = [[5, 6, 7, 8], [5, 6, 7, 8], [30, 31], [30, 31], [30, 31], [40, 41, 42]]
RESPONSES = [[50, 51, 52], [60, 61, 62, 63, 64], [70, 2], [71, 72, 73, 74], [75], [80, 81]]
UIDS = ["a", "a", "b", "b", "b", "c"]
REWARDS = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]  # c is alone: no contrast
ADVANTAGES = [0.9, -1.1, -0.4, 1.3, -0.6, 0.0]


def make_config(model: Path) -> DictConfig:
    search = f"hydra.searchpath=[file://{Path(verl.__file__).parent / 'trainer' / 'config'}]"
    overrides = [
        search,
        "profile=smoke",
        "data.train_batch_size=6",
        "actor_rollout_ref.rollout.n=1",
        "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3",
        "actor_rollout_ref.actor.optim.total_training_steps=2",
    ]
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose("influence", overrides)
    OmegaConf.set_struct(config, False)
    config.actor_rollout_ref.model.path = str(model)
    return config


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("model")
    tiny_qwen2.make(folder, seed=0)
    return folder


@pytest.fixture
def worker(model_folder: Path) -> Iterator[Any]:
    """verl's worker with the plugin's trainer inside, the only rank of its world, in this process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    world["MASTER_PORT"] = str(port)
    before = {name: os.environ.get(name) for name in world}
    os.environ.update(world)
    try:
        built = InfluenceWorker(config=make_config(model_folder).actor_rollout_ref, role="actor")
        built.init_model()
        yield built
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def jagged(rows: list[list[float]], dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row, dtype=dtype) for row in rows], layout=torch.jagged)


def make_batch(old_log_probs: list[Tensor]) -> TensorDict:
    sequences = [prompt + response for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]
    data = tu.get_tensordict(
        {
            "prompts": jagged(PROMPTS),
            "responses": jagged(RESPONSES),
            "input_ids": jagged(sequences),
            "position_ids": jagged([list(range(len(sequence))) for sequence in sequences]),
            "response_mask": jagged([[1] * len(response) for response in RESPONSES]),
            "loss_mask": jagged([[1] * len(response) for response in RESPONSES]),
            "old_log_probs": torch.nested.as_nested_tensor(old_log_probs, layout=torch.jagged),
            "advantages": jagged([[a] * len(r) for a, r in zip(ADVANTAGES, RESPONSES, strict=True)], torch.float32),
            "rm_scores": jagged(
                [[0.0] * (len(r) - 1) + [s] for s, r in zip(REWARDS, RESPONSES, strict=True)], torch.float32
            ),
            "uid": UIDS,
            "extra_fields": [{"reward_extra_info": {}} for _ in UIDS],
        }
    )
    batch = len(UIDS)
    tu.assign_non_tensor(data, temperature=1.0, global_batch_size=batch, mini_batch_size=batch, epochs=1, seed=0)
    tu.assign_non_tensor(data, dataloader_kwargs={"shuffle": False}, calculate_entropy=False)
    return data


def request(**changes: Any) -> dict[str, Any]:
    return {"config": {**INFLUENCE, **changes}, "accepted_threshold": 0.5, "inline": True}


def log_probs_of(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    ids = torch.tensor([prompt + response])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits.float(), -1).gather(-1, ids[0, len(prompt) :, None]).squeeze(-1)


def token_gradients(model: Any, index: int, weight: float) -> dict[str, Tensor]:
    """Module -> [n, out, in]: the gradient of weight * sum(log p) by the module's weight, taken at each predicting position."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
            output.retain_grad()
            seen[name] = (args[0], output)

        return hook

    linears = {n: m for n, m in model.named_modules() if n.endswith(TARGETS)}
    handles = [module.register_forward_hook(keep(name)) for name, module in linears.items()]
    (weight * log_probs_of(model, PROMPTS[index], RESPONSES[index]).sum()).backward()
    for handle in handles:
        handle.remove()
    first = len(PROMPTS[index]) - 1
    where = slice(first, first + len(RESPONSES[index]))
    return {
        name: torch.einsum("to,ti->toi", output.grad[0, where].double(), inputs[0, where].detach().double())
        for name, (inputs, output) in seen.items()
    }


def expected_scores(model: Any, weights: list[float]) -> list[Tensor | None]:
    """score_t = <g_t, sum over the prompt's other responses of +-g_r>, from materialised gradients; None without contrast."""
    gradients = [token_gradients(model, index, weight) for index, weight in enumerate(weights)]
    answers: list[Tensor | None] = []
    for index, uid in enumerate(UIDS):
        group = [other for other in range(len(UIDS)) if UIDS[other] == uid]
        if len({REWARDS[other] for other in group}) < 2:
            answers.append(None)
            continue
        signs = {other: 1.0 if REWARDS[other] > 0.5 else -1.0 for other in group if other != index}
        total = torch.zeros(len(RESPONSES[index]), dtype=torch.float64)
        for name, own in gradients[index].items():
            direction = sum(sign * gradients[other][name].sum(0) for other, sign in signs.items())
            total += torch.einsum("toi,oi->t", own, direction)
        answers.append(total)
    return answers


def assert_scores(scores: Tensor, mask: Tensor, expected: list[Tensor | None]) -> None:
    for row, due, answer in zip(scores.unbind(), mask.unbind(), expected, strict=True):
        assert bool(due.all()) == (answer is not None)
        if answer is None:
            assert not due.any()
            assert torch.isnan(row).all()
        else:
            scale = float(answer.abs().max())
            torch.testing.assert_close(row.double(), answer, rtol=2e-4, atol=2e-4 * scale)


@pytest.fixture(scope="module")
def reference(model_folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="eager")


@pytest.fixture
def batch(reference: Any) -> TensorDict:
    with torch.no_grad():
        old = [log_probs_of(reference, p, r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    return make_batch(old)


pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_the_tapped_update_gives_the_gradients_of_the_training_loss(
    worker: Any, reference: Any, batch: TensorDict
) -> None:
    tokens = sum(len(response) for response in RESPONSES)
    loss_weights = [-advantage / tokens for advantage in ADVANTAGES]  # on-policy, token-mean: the ratio is 1
    config = request(output_function="training_loss")
    before = worker.actor.engine.get_per_tensor_param()[0]
    weights = {name: tensor.detach().clone() for name, tensor in before}
    update = copy.copy(batch)
    tu.assign_non_tensor_data(update, "influence_request", config)
    output = worker.actor.train_mini_batch(update)
    assert tu.get(output, "metrics")["grad_norm"][0] > 0
    after = dict(worker.actor.engine.get_per_tensor_param()[0])
    assert any(not torch.equal(weights[name], after[name]) for name in weights), "the update really trained"
    scores, mask, report = score_rows(batch, *popped(worker, config), config)
    assert_scores(scores, mask, expected_scores(reference, loss_weights))
    assert report["scored_tokens"] == tokens - len(RESPONSES[-1])


@pytest.mark.parametrize("function", ["log_prob_reward", "log_prob_advantage"])
def test_a_capture_pass_gives_the_gradients_of_log_probabilities_and_changes_no_weight(
    worker: Any, reference: Any, batch: TensorDict, function: str
) -> None:
    weights = [-1.0] * len(UIDS) if function == "log_prob_reward" else [-advantage for advantage in ADVANTAGES]
    config = request(output_function=function)
    before = {name: tensor.detach().clone() for name, tensor in worker.actor.engine.get_per_tensor_param()[0]}
    from trainer_ext.influence import InfluenceConfig

    worker.actor.capture_pass(batch, InfluenceConfig.from_mapping(config["config"]))
    scores, mask, _ = score_rows(batch, *popped(worker, config), config)
    assert_scores(scores, mask, expected_scores(reference, weights))
    after = dict(worker.actor.engine.get_per_tensor_param()[0])
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_held_optimizer_logs_the_norm_and_leaves_the_weights(worker: Any, batch: TensorDict) -> None:
    before = {name: tensor.detach().clone() for name, tensor in worker.actor.engine.get_per_tensor_param()[0]}
    tu.assign_non_tensor_data(batch, "influence_request", request(skip_optimizer_step=True))
    output = worker.actor.train_mini_batch(batch)
    assert tu.get(output, "metrics")["grad_norm"][0] > 0
    after = dict(worker.actor.engine.get_per_tensor_param()[0])
    assert all(torch.equal(before[name], after[name]) for name in before)


def popped(worker: Any, config: dict[str, Any]) -> tuple[Any, Any]:
    from trainer_ext.influence import InfluenceConfig

    parsed = InfluenceConfig.from_mapping(config["config"])
    return worker.actor.tap(parsed).take(), parsed
