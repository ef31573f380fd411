"""Where a step's gradients come from: the backward pass of the update itself, or one of its own before it.

The gradient of a response's log-probability is in the update's backward pass already, times the response's weight in the loss,
where the policy is still the one that wrote the responses (ratio 1, so nothing is clipped), all tokens of a response weigh the
same, and the loss has no other term. Then capturing there and dividing by the weight gives what a pass of its own would
(`inline`). What stands in the way is decided here, before the update, from the config and the batch alone.

A response without an advantage has no weight to divide by. With `log_prob_reward`, where it counts nevertheless, the rows of
such responses take a small pass of their own before the update (`tap.py`); with `log_prob_advantage` their gradient is zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer_ext.influence import InfluenceConfig

CAPTURES = ("auto", "separate", "inline")
"""Values of `influence.capture`."""
EVEN_LOSSES = ("vanilla", "gspo", "gpg", "cispo")
"""Policy losses that give every token of a response the same weight as long as the ratio is 1."""
SMALLEST_ADVANTAGE = 1e-6
"""A response whose advantage is smaller has no weight to divide by."""


@dataclass(frozen=True)
class CaptureMode:
    """What was decided for a step, and why."""

    inline: bool
    why: str

    def line(self) -> str:
        """For the console."""
        return f"[influence_trace] capture {'inline' if self.inline else 'separate'}: {self.why}"


def check_setting(capture: str, config: InfluenceConfig, obstacles: Sequence[str]) -> None:
    """Refuse at the start what no step could do.

    Args:
        obstacles: what `config_obstacles` found.

    Raises:
        ValueError: an unknown value, or one that the other settings rule out.
    """
    if capture not in CAPTURES:
        raise ValueError(f"influence.capture: expected one of {', '.join(CAPTURES)}, got {capture!r}")
    if capture == "separate" and config.output_function == "training_loss":
        raise ValueError(
            "influence.capture=separate: the gradient of training_loss is the update's own; set capture=auto, or "
            "output_function to log_prob_reward or log_prob_advantage"
        )
    if capture == "inline" and config.output_function != "training_loss" and obstacles:
        raise ValueError(_impossible(obstacles))


def decide(
    capture: str, config: InfluenceConfig, obstacles: Sequence[str], weightless: int, responses: int
) -> CaptureMode:
    """What to do in a step.

    Args:
        capture: the setting, checked before.
        obstacles: of the config and of this batch.
        weightless: how many of the `responses` have no advantage.

    Raises:
        ValueError: `inline` is asked for, and this batch rules it out.
    """
    if config.output_function == "training_loss":
        return CaptureMode(True, "training_loss is the update's own gradient")
    if capture == "separate":
        return CaptureMode(False, "asked for")
    if obstacles and capture == "inline":
        raise ValueError(_impossible(obstacles))
    if obstacles:
        return CaptureMode(False, "; ".join(obstacles))
    why = "one weight for each response"
    if weightless and config.output_function == "log_prob_reward":
        why += f"; {weightless} of {responses} have none, a pass of their own gives those with a contrast theirs"
    return CaptureMode(True, why)


def _impossible(obstacles: Sequence[str]) -> str:
    return (
        f"influence.capture=inline: the update's backward pass does not hold the gradient asked for ({'; '.join(obstacles)}); "
        "change that, or set capture=auto or separate"
    )


def config_obstacles(job: Mapping[str, Any], config: InfluenceConfig, rows: int | None = None) -> list[str]:
    """What in a job's config keeps the update's backward pass from holding the gradient of log-probabilities.

    Args:
        job: verl's whole config.
        rows: responses of the batch; None: as many as the config says.
    """
    actor, algorithm = job["actor_rollout_ref"]["actor"], job["algorithm"]
    correction = algorithm.get("rollout_correction") or {}
    loss = (actor.get("policy_loss") or {}).get("loss_mode", "vanilla")
    precision = ((actor.get("fsdp_config") or {}).get("mixed_precision") or {}).get("param_dtype")
    samples = job["actor_rollout_ref"]["rollout"]["n"]
    rows = samples * job["data"]["train_batch_size"] if rows is None else rows
    steps = rows / (samples * actor["ppo_mini_batch_size"])
    found = {
        f"entropy_coeff={actor.get('entropy_coeff')}": actor.get("entropy_coeff"),
        f"use_kl_loss with kl_loss_coef={actor.get('kl_loss_coef')}": actor.get("use_kl_loss")
        and actor.get("kl_loss_coef"),
        f"policy_loss.loss_mode={loss}": loss not in EVEN_LOSSES,
        "rollout_correction.bypass_mode: the ratio is to the rollout engine's probabilities": correction.get(
            "bypass_mode"
        ),
        "rollout_correction.rollout_is=token": correction.get("rollout_is") == "token",
        "distillation": (job.get("distillation") or {}).get("enabled"),
        f"mixed_precision.param_dtype={precision}: small weights vanish": precision in ("fp16", "float16", "half"),
        f"{steps:g} optimizer steps an epoch: the later ones see other weights": steps > 1
        and not config.skip_optimizer_step,
    }
    return [text for text, holds in found.items() if holds]


def batch_obstacles(advantages: Tensor, response_mask: Tensor, correction: Tensor | None) -> list[str]:
    """What in a batch keeps the tokens of a response from weighing the same.

    Args:
        advantages: jagged [B, n].
        response_mask: jagged [B, n], nonzero where the model wrote the token.
        correction: jagged [B, n], weights of verl's rollout correction; None: there are none.
    """
    found = []
    if not _even(advantages, response_mask):
        found.append("advantages differ within a response")
    if correction is not None and not _even(correction, response_mask):
        found.append("rollout correction weights differ within a response")
    elif correction is not None and bool((correction.values()[response_mask.values().bool()] == 0).any()):
        found.append("rollout correction weights of zero")
    return found


def without_weight(advantage: Tensor) -> Tensor:
    """bool [R]: responses whose advantage [R] is nothing to divide by."""
    return advantage.abs() < SMALLEST_ADVANTAGE


def _even(values: Tensor, mask: Tensor) -> bool:
    """Whether the values of the masked tokens are one number in each row."""
    rows = zip(values.unbind(), mask.unbind(), strict=True)
    kept = (row[here.bool()] for row, here in rows)
    return all(bool(torch.isclose(row, row[0], rtol=1e-5, atol=0).all()) for row in kept if len(row))
