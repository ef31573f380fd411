"""Where gradients may come from, decided from configs and batches alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.verl_plugin.engine_world import changed, jagged
from trainer_ext.influence import InfluenceConfig
from trainer_ext.verl_plugin.capture_mode import batch_obstacles, check_setting, config_obstacles, decide

REWARD, ADVANTAGE = (InfluenceConfig(output_function=name) for name in ("log_prob_reward", "log_prob_advantage"))
TRAINING = InfluenceConfig(output_function="training_loss")


def obstacles(*overrides: str, config: InfluenceConfig = REWARD, rows: int | None = None) -> list[str]:
    return config_obstacles(changed(*overrides), config, rows)


def test_the_plugins_own_config_has_nothing_in_the_way() -> None:
    assert obstacles() == []


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("actor_rollout_ref.actor.entropy_coeff=0.01", "entropy_coeff=0.01"),
        ("actor_rollout_ref.actor.use_kl_loss=true", "use_kl_loss with kl_loss_coef=0.001"),
        ("actor_rollout_ref.actor.policy_loss.loss_mode=clip_cov", "policy_loss.loss_mode=clip_cov"),
        ("algorithm.rollout_correction.bypass_mode=true", "rollout_correction.bypass_mode"),
        ("algorithm.rollout_correction.rollout_is=token", "rollout_correction.rollout_is=token"),
        ("distillation.enabled=true", "distillation"),
        (
            "actor_rollout_ref.actor.fsdp_config.mixed_precision.param_dtype=fp16",
            "param_dtype=fp16: small weights vanish",
        ),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=2", "2 optimizer steps an epoch"),
    ],
)
def test_what_is_in_the_way_is_named(override: str, said: str) -> None:
    (found,) = obstacles(override)
    assert said in found
    with pytest.raises(ValueError, match=r"influence\.capture=inline: .*capture=auto or separate"):
        check_setting("inline", REWARD, [found])
    mode = decide("auto", REWARD, [found], 0, 16)
    assert mode.line() == f"[influence_trace] capture separate: {found}"


@pytest.mark.parametrize(
    "override",
    [
        "actor_rollout_ref.actor.calculate_entropy=true",
        "actor_rollout_ref.actor.ppo_epochs=3",
        "actor_rollout_ref.actor.clip_ratio_high=0.28",
        "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum",
        "actor_rollout_ref.actor.policy_loss.loss_mode=gspo",
        "algorithm.rollout_correction.rollout_is=sequence",
    ],
)
def test_what_leaves_a_response_one_weight_is_not_in_the_way(override: str) -> None:
    assert obstacles(override) == []


def test_a_kl_loss_without_weight_is_not_in_the_way() -> None:
    assert obstacles("actor_rollout_ref.actor.use_kl_loss=true", "actor_rollout_ref.actor.kl_loss_coef=0") == []


def test_mini_batches_of_weights_that_stay_are_not_in_the_way() -> None:
    held = InfluenceConfig(output_function="log_prob_reward", skip_optimizer_step=True)
    assert obstacles("actor_rollout_ref.actor.ppo_mini_batch_size=2", config=held) == []


def test_the_batchs_own_size_decides_how_many_optimizer_steps_there_are() -> None:
    assert obstacles(rows=4) == []
    assert obstacles(rows=8) == ["2 optimizer steps an epoch: the later ones see other weights"]


def test_the_training_loss_is_always_captured_in_the_update() -> None:
    mode = decide("auto", TRAINING, [], 3, 16)
    assert mode.inline
    assert mode.line() == "[influence_trace] capture inline: training_loss is the update's own gradient"
    check_setting("inline", TRAINING, ["entropy_coeff=0.01"])
    with pytest.raises(ValueError, match="gradient of training_loss is the update's own"):
        check_setting("separate", TRAINING, [])


def test_separate_capture_can_be_asked_for() -> None:
    assert decide("separate", REWARD, [], 0, 16).line() == "[influence_trace] capture separate: asked for"


def test_an_unknown_value_is_refused() -> None:
    with pytest.raises(ValueError, match=r"influence\.capture: expected one of auto, separate, inline, got 'both'"):
        check_setting("both", REWARD, [])


def test_responses_without_weight_are_said_where_they_take_a_pass_of_their_own() -> None:
    assert "3 of 16 have none" in decide("auto", REWARD, [], 3, 16).why
    assert decide("auto", ADVANTAGE, [], 3, 16).why == decide("auto", REWARD, [], 0, 16).why


def mask_of(*rows: list[int]) -> Tensor:
    return jagged(rows)


def floats(*rows: list[float]) -> Tensor:
    return jagged(rows, torch.float32)


MASK = mask_of([1, 1, 0], [1], [0, 0])
EVEN: dict[str, Any] = {"advantages": floats([0.5, 0.5, 0.0], [-2.0], [0.0, 1.0]), "response_mask": MASK}


def test_a_batch_of_even_advantages_is_not_in_the_way() -> None:
    assert batch_obstacles(**EVEN, correction=None) == []
    assert batch_obstacles(**EVEN, correction=floats([0.7, 0.7, 0.0], [2.0], [0.0, 0.0])) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"advantages": floats([0.5, 0.6, 0.0], [1.0], [0.0, 0.0])}, "advantages differ within a response"),
        (
            {"correction": floats([0.5, 0.6, 0.0], [1.0], [0.0, 0.0])},
            "rollout correction weights differ within a response",
        ),
        ({"correction": floats([0.0, 0.0, 0.0], [1.0], [0.0, 0.0])}, "rollout correction weights of zero"),
    ],
)
def test_a_batch_that_weighs_tokens_differently_is(changed: dict[str, Tensor], said: str) -> None:
    found = batch_obstacles(**{**EVEN, "correction": None, **changed})
    assert found == [said]
    with pytest.raises(ValueError, match=said):
        decide("inline", REWARD, found, 0, 3)
    assert not decide("auto", REWARD, found, 0, 3).inline
