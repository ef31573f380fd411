"""What the composed configuration of a verl job says about its size. None where it says too little."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.model import Scalar
from orchestrator.preflight.influence import TraceSettings
from orchestrator.preflight.models import ModelShape

LookUp = Callable[[str], ModelShape | None]
"""The shape of the model behind a path of the configuration, where it is known."""

RESPONSE_SHARE = 0.75
"""Of the longest response, how long responses are expected to be on average; half to all of it is the interval."""


@dataclass(frozen=True)
class Workload:
    """Sizes of one step on one rank, unless they say otherwise."""

    model: ModelShape
    cuda: bool
    ranks: int
    ranks_per_node: int
    prompts: int
    """Of all ranks."""
    samples: int
    """Responses of a prompt."""
    prompt_tokens: int
    """At most, of one."""
    response_tokens: int
    pass_tokens: int
    """Of one forward and backward pass."""
    steps: int | None
    recomputes: bool
    """Activations are recomputed in the backward pass, a layer at a time."""
    weight_bytes: int
    """Of a weight as the optimizer keeps it."""
    weights_on_host: bool
    optimizer_on_host: bool
    keeps_logits: bool
    rollout_share: float
    """Of the card, for the rollout engine while it generates; 0: it has no memory of its own."""
    trace: TraceSettings | None

    @property
    def responses(self) -> int:
        """Of one rank."""
        return max(1, -(-self.prompts * self.samples // self.ranks))

    def traced_tokens(self, share: float) -> float:
        """Response tokens of one rank whose gradients are captured, at a mean length of `share` of the longest."""
        length = share * self.response_tokens
        if self.trace is not None and self.trace.max_tokens > 0:
            length = min(length, self.trace.max_tokens)
        return self.responses * length

    def features(self) -> dict[str, Scalar]:
        """The numbers and words that decide the cost, flat: how near two workloads are."""
        flat: dict[str, Scalar] = {}
        for name, value in vars(self).items():
            if isinstance(value, ModelShape | TraceSettings):
                for key, inner in vars(value).items():
                    flat[f"{name}.{key}"] = ",".join(inner) if isinstance(inner, tuple) else inner
            else:
                flat[name] = value
        return flat


def workload(config: Mapping[str, Any], shape_of: LookUp) -> Workload | None:
    """Read a composed configuration of verl's `ppo_trainer`; None where it is none, or its model is unknown."""
    try:
        return _workload(config, shape_of)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
        return None


def _workload(config: Mapping[str, Any], shape_of: LookUp) -> Workload | None:
    parts, data, trainer = config["actor_rollout_ref"], config["data"], config["trainer"]
    actor, rollout, model = parts["actor"], parts["rollout"], parts["model"]
    shape = shape_of(str(model["path"]))
    if shape is None:
        return None
    fsdp = actor.get("fsdp_config") or {}
    nodes, a_node = int(trainer["nnodes"]), int(trainer["n_gpus_per_node"])
    longest = int(data["max_prompt_length"]) + int(data["max_response_length"])
    steps = trainer.get("total_training_steps")
    return Workload(
        model=shape,
        cuda=trainer.get("device", "cuda") == "cuda",
        ranks=nodes * a_node,
        ranks_per_node=a_node,
        prompts=int(data["train_batch_size"]),
        samples=int(rollout["n"]),
        prompt_tokens=int(data["max_prompt_length"]),
        response_tokens=int(data["max_response_length"]),
        pass_tokens=_pass_tokens(actor, longest, int(data["train_batch_size"]) * int(rollout["n"]) // (nodes * a_node)),
        steps=int(steps) if steps else None,
        recomputes=bool(model.get("enable_gradient_checkpointing", False)),
        weight_bytes=2 if str(fsdp.get("model_dtype", "fp32")) in ("bf16", "bfloat16", "fp16", "float16") else 4,
        weights_on_host=bool(fsdp.get("param_offload", False)),
        optimizer_on_host=bool(fsdp.get("optimizer_offload", False)),
        keeps_logits=not (model.get("use_fused_kernels") or actor.get("use_fused_kernels")),
        rollout_share=float(rollout.get("gpu_memory_utilization", 0.5)) if rollout["name"] in ENGINES else 0.0,
        trace=TraceSettings.of(config.get("influence") or {}),
    )


ENGINES = ("vllm", "sglang")
"""Rollouts that reserve a share of the card for themselves."""


def _pass_tokens(actor: Mapping[str, Any], longest: int, responses: int) -> int:
    """Tokens that one pass holds at most."""
    everything = max(1, responses) * longest
    if actor.get("use_dynamic_bsz"):
        return min(int(actor["ppo_max_token_len_per_gpu"]), everything)
    micro = actor.get("ppo_micro_batch_size_per_gpu")
    return min(int(micro) * longest, everything) if micro else everything
