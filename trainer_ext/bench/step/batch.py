"""A batch of one rank as verl's trainer hands it to the update: jagged columns of tokens, rewards, advantages.

Tokens are random, lengths uniform; every other response of a prompt is accepted, so that each group has a contrast. What the
step costs depends on none of that but the lengths.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu

from trainer_ext.bench.step.plan import StepPlan
from trainer_ext.replay import Lengths, synthetic_response
from trainer_ext.seeds import response_seed

TEMPERATURE = 1.0


def make_batch(plan: StepPlan, rank: int, vocabulary: Sequence[int]) -> TensorDict:
    """The plan's prompts and responses of one rank, [prompts * per_prompt] rows, on the CPU."""
    lengths = Lengths(*plan.response)
    prompts, responses, uids = [], [], []
    for index in range(plan.prompts):
        uid = f"{rank:04d}-{index:04d}"
        prompt = random.Random(response_seed(plan.seed, 0, uid, 0)).choices(vocabulary, k=plan.prompt_tokens)
        for replica in range(plan.per_prompt):
            seed = response_seed(plan.seed, 1, uid, replica)
            responses.append(synthetic_response(seed, lengths, vocabulary))
            prompts.append(prompt)
            uids.append(uid)
    rewards = torch.arange(plan.per_prompt).remainder(2).float()
    advantage = (rewards - rewards.mean()) / rewards.std()
    advantages = advantage.repeat(plan.prompts).tolist()
    scores = [[0.0] * (len(r) - 1) + [float(i % plan.per_prompt % 2)] for i, r in enumerate(responses)]
    sequences = [prompt + response for prompt, response in zip(prompts, responses, strict=True)]
    mask = jagged([[1] * len(response) for response in responses])
    return tu.get_tensordict(
        {
            "prompts": jagged(prompts),
            "responses": jagged(responses),
            "input_ids": jagged(sequences),
            "position_ids": jagged([list(range(len(sequence))) for sequence in sequences]),
            "response_mask": mask,
            "loss_mask": mask.clone(),
            "advantages": jagged([[a] * len(r) for a, r in zip(advantages, responses, strict=True)], torch.float32),
            "rm_scores": jagged(scores, torch.float32),
            "uid": uids,
            "extra_fields": [{"reward_extra_info": {}} for _ in uids],
        }
    )


def jagged(rows: Sequence[Sequence[float]], dtype: torch.dtype = torch.int64) -> Tensor:
    """[B, n] of rows of different lengths."""
    return torch.nested.as_nested_tensor([torch.tensor(row, dtype=dtype) for row in rows], layout=torch.jagged)


def for_update(batch: TensorDict, plan: StepPlan, **extra: Any) -> TensorDict:
    """A copy that an update may take apart, with what verl's trainer sends along (`PPOTrainer._update_actor`)."""
    data = batch.clone(recurse=False)
    rows = plan.prompts * plan.per_prompt * plan.ranks
    tu.assign_non_tensor(
        data,
        calculate_entropy=False,
        distillation_use_topk=False,
        distillation_only=False,
        global_batch_size=rows,
        mini_batch_size=rows,
        epochs=1,
        seed=plan.seed,
        dataloader_kwargs={"shuffle": False},
        temperature=TEMPERATURE,
        **extra,
    )
    return data


def for_log_probs(batch: TensorDict) -> TensorDict:
    """A copy for the pass that computes old log-probabilities."""
    data = batch.clone(recurse=False)
    tu.assign_non_tensor(data, calculate_entropy=False, compute_loss=False, temperature=TEMPERATURE)
    return data
