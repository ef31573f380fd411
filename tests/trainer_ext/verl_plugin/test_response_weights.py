"""The weights of responses, read off the gradient of verl's own losses."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.losses import ppo_loss

from tests.trainer_ext.verl_plugin.engine_world import changed, jagged
from trainer_ext.verl_plugin.capture_mode import EVEN_LOSSES
from trainer_ext.verl_plugin.response_weights import PassTokens, ResponseWeights

PROMPTS, RESPONSES = [2, 3, 1, 2], [3, 1, 4, 2]
MASKS = [[1, 1, 1], [1], [0, 1, 1, 0], [1, 1]]
ADVANTAGES = torch.tensor([0.7, -1.2, 0.3, 0.0])
WANTED = torch.tensor([-1.0, -2.0, -3.0, -4.0])
LENGTHS = torch.tensor(PROMPTS) + torch.tensor(RESPONSES)


def loss_of(*overrides: str) -> Any:
    config = changed(*overrides).actor_rollout_ref.actor
    return partial(ppo_loss, config=omega_conf_to_dataclass(config))


def batch(advantages: list[list[float]] | None = None) -> Any:
    rows = advantages or [[float(a)] * n for a, n in zip(ADVANTAGES, RESPONSES, strict=True)]
    ones = [[1] * n for n in RESPONSES]
    data = tu.get_tensordict(
        {
            "prompts": jagged([[1] * n for n in PROMPTS]),
            "responses": jagged(ones),
            "response_mask": jagged(MASKS),
            "old_log_probs": jagged([[-9.0] * n for n in RESPONSES], torch.float32),  # clipped, if it were used
            "advantages": jagged(rows, torch.float32),
        }
    )
    tu.assign_non_tensor(data, dp_size=4, batch_num_tokens=30, global_batch_size=16)
    return data


def run(loss: Any, data: Any, weighty: Tensor = ADVANTAGES != 0) -> tuple[ResponseWeights, Tensor, Tensor]:
    """(what read the weights, what it handed over, the gradient of the log-probabilities)."""
    weights, handed = ResponseWeights(), []
    values = torch.linspace(-3, -1, int(LENGTHS.sum()), requires_grad=True)
    log_probs = torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, *LENGTHS.cumsum(0)]))
    tokens = PassTokens.of(LENGTHS, data["response_mask"])
    reading = weights.read_off(loss, tokens, WANTED, weighty, handed.append)
    reading(model_output={"log_probs": log_probs}, data=data, dp_group=None)[0].backward()
    (scale,) = handed
    assert values.grad is not None
    return weights, scale, values.grad


@pytest.mark.parametrize("loss_mode", EVEN_LOSSES)
@pytest.mark.parametrize(
    "aggregation", ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"]
)
def test_every_loss_that_is_called_even_is(loss_mode: str, aggregation: str) -> None:
    actor = "actor_rollout_ref.actor"
    loss = loss_of(f"{actor}.policy_loss.loss_mode={loss_mode}", f"{actor}.loss_agg_mode={aggregation}")

    weights, scale, gradient = run(loss, batch())

    weights.check()
    starts = LENGTHS.cumsum(0) - torch.tensor(RESPONSES) - 1
    for response, (start, mask) in enumerate(zip(starts.tolist(), MASKS, strict=True)):
        rescaled = gradient[start : start + len(mask)] * scale[response]
        expected = WANTED[response] * torch.tensor(mask) * (ADVANTAGES[response] != 0)
        torch.testing.assert_close(rescaled, expected)


def test_a_loss_that_sorts_tokens_out_is_noticed() -> None:
    loss = loss_of(
        "actor_rollout_ref.actor.policy_loss.loss_mode=dro", "actor_rollout_ref.actor.policy_loss.dro_beta=1"
    )
    uneven = batch([[0.7, 0.8, 0.7], [-1.2], [0.3] * 4, [0.0] * 2])

    weights, _, _ = run(loss, uneven)

    with pytest.raises(RuntimeError, match=r"differences reach 1.4e-01 of the weight"):
        weights.check()
    weights.check()


def test_tokens_that_the_model_did_not_write_may_weigh_anything() -> None:
    weights, _, _ = run(loss_of(), batch([[0.7] * 3, [-1.2], [9.0, 0.3, 0.3, -9.0], [0.0] * 2]))

    weights.check()


def test_a_missing_weight_is_noticed() -> None:
    weights, _, _ = run(loss_of(), batch(), weighty=torch.tensor([True, True, True, True]))

    with pytest.raises(RuntimeError, match="differences reach inf"):
        weights.check()


def test_a_response_without_a_token_of_the_model_needs_no_weight() -> None:
    data = batch()
    data["response_mask"] = jagged([[1, 1, 1], [1], [0, 0, 0, 0], [1, 1]])

    weights, scale, _ = run(loss_of(), data)  # the one after it has none either

    weights.check()
    assert (scale != 0).tolist() == [True, True, False, False]


def test_nothing_read_is_nothing_wrong() -> None:
    ResponseWeights().check()
