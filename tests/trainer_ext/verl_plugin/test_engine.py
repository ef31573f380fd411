"""Scores out of verl's own FSDP engine, against gradients that plain autograd materialises one token at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from tests.trainer_ext.verl_plugin.engine_world import (
    Rows,
    make_batch,
    make_config,
    parameters,
    request,
    score,
    update,
    worker_of,
)

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ROWS = Rows(
    [
        ("a", [5, 6, 7, 8], [50, 51, 52], 1.0, 0.9),
        ("a", [5, 6, 7, 8], [60, 61, 62, 63, 64], 0.0, -1.1),
        ("b", [30, 31], [70, 2], 0.0, -0.4),
        ("b", [30, 31], [71, 72, 73, 74], 1.0, 1.3),
        ("b", [30, 31], [75], 0.0, -0.6),
        ("c", [40, 41, 42], [80, 81], 1.0, 0.0),  # alone: no contrast
    ]
)
TOKENS = sum(map(len, ROWS.responses))

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def worker(model_folder: Path) -> Iterator[Any]:
    with worker_of(make_config(model_folder, "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=3")) as built:
        yield built


@pytest.fixture(scope="module")
def reference(model_folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="eager")


@pytest.fixture
def batch(reference: Any) -> TensorDict:
    with torch.no_grad():
        old = [log_probs_of(reference, p, r) for p, r in zip(ROWS.prompts, ROWS.responses, strict=True)]
    return make_batch(ROWS, old)


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
    (weight * log_probs_of(model, ROWS.prompts[index], ROWS.responses[index]).sum()).backward()
    for handle in handles:
        handle.remove()
    first = len(ROWS.prompts[index]) - 1
    where = slice(first, first + len(ROWS.responses[index]))
    return {
        name: torch.einsum("to,ti->toi", output.grad[0, where].double(), inputs[0, where].detach().double())
        for name, (inputs, output) in seen.items()
    }


def expected_scores(model: Any, weights: list[float]) -> list[Tensor | None]:
    """score_t = <g_t, sum over the prompt's other responses of +-g_r>, from materialised gradients; None without contrast."""
    gradients = [token_gradients(model, index, weight) for index, weight in enumerate(weights)]
    answers: list[Tensor | None] = []
    for index, uid in enumerate(ROWS.uids):
        group = [other for other in range(len(ROWS)) if ROWS.uids[other] == uid]
        if len({ROWS.rewards[other] for other in group}) < 2:
            answers.append(None)
            continue
        signs = {other: 1.0 if ROWS.rewards[other] > 0.5 else -1.0 for other in group if other != index}
        total = torch.zeros(len(ROWS.responses[index]), dtype=torch.float64)
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


def test_the_tapped_update_gives_the_gradients_of_the_training_loss(
    worker: Any, reference: Any, batch: TensorDict
) -> None:
    loss_weights = [-advantage / TOKENS for advantage in ROWS.advantages]  # on-policy, token-mean: the ratio is 1
    asked = request(output_function="training_loss")
    before = parameters(worker)
    assert update(worker, batch, asked)["grad_norm"][0] > 0
    after = parameters(worker)
    assert any(not torch.equal(before[name], after[name]) for name in before), "the update really trained"
    scores, mask, report = score(worker, batch, asked)
    assert_scores(scores, mask, expected_scores(reference, loss_weights))
    assert report["tokens"] == TOKENS
    assert report["scored_tokens"] == TOKENS - len(ROWS.responses[-1])


@pytest.mark.parametrize("function", ["log_prob_reward", "log_prob_advantage"])
def test_a_capture_pass_gives_the_gradients_of_log_probabilities_and_changes_no_weight(
    worker: Any, reference: Any, batch: TensorDict, function: str
) -> None:
    weights = [-1.0] * len(ROWS) if function == "log_prob_reward" else [-advantage for advantage in ROWS.advantages]
    before = parameters(worker)
    scores, mask, _ = score(worker, batch, request(inline=False, output_function=function))
    assert_scores(scores, mask, expected_scores(reference, weights))
    after = parameters(worker)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_held_optimizer_logs_the_norm_and_leaves_the_weights(worker: Any, batch: TensorDict) -> None:
    before = parameters(worker)
    assert update(worker, batch, request(output_function="training_loss", skip_optimizer_step=True))["grad_norm"][0] > 0
    after = parameters(worker)
    assert all(torch.equal(before[name], after[name]) for name in before)
