"""The batch that a rank of the step benchmark trains on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainer_ext.bench.step.values import make_plan

VOCABULARY = range(10, 40)


@pytest.fixture(scope="module")
def module() -> Any:
    import tests.trainer_ext.verl_plugin.conftest  # noqa: F401  # imports verl, its warnings aside
    from trainer_ext.bench.step import batch

    return batch


def test_every_prompt_has_accepted_and_rejected_responses_of_zero_mean_advantage(module: Any) -> None:
    batch = module.make_batch(make_plan(), 0, VOCABULARY)
    assert len(batch) == 2 * 4
    rewards = torch.stack([row.sum() for row in batch["rm_scores"].unbind()])
    assert rewards.tolist() == [0.0, 1.0] * 4
    advantages = torch.stack([row[0] for row in batch["advantages"].unbind()])
    assert float(advantages[:4].sum()) == pytest.approx(0, abs=1e-6)
    assert float(advantages.abs().min()) > 0.5, "every response has a weight in the loss"
    assert [len(set(list(batch["uid"])[start : start + 4])) for start in (0, 4)] == [1, 1]


def test_sequences_are_prompts_and_responses_of_the_lengths_asked_for(module: Any) -> None:
    batch = module.make_batch(make_plan(), 0, VOCABULARY)
    lengths = batch["responses"].offsets().diff()
    assert 3 <= int(lengths.min()) < int(lengths.max()) <= 9
    for prompt, response, whole in zip(
        *(batch[n].unbind() for n in ("prompts", "responses", "input_ids")), strict=True
    ):
        assert torch.equal(torch.cat([prompt, response]), whole)
        assert len(prompt) == 5
    assert {int(token) for token in batch["input_ids"].values()} <= set(VOCABULARY)
    assert torch.equal(batch["response_mask"].offsets(), batch["responses"].offsets())


def test_ranks_have_batches_of_their_own_and_a_seed_repeats_them(module: Any) -> None:
    first, same, other = (module.make_batch(make_plan(), rank, VOCABULARY) for rank in (0, 0, 1))
    assert torch.equal(first["input_ids"].values(), same["input_ids"].values())
    assert not set(first["uid"]) & set(other["uid"])
    assert not torch.equal(first["prompts"].values(), other["prompts"].values())


def test_an_update_gets_a_copy_that_it_may_take_apart(module: Any) -> None:
    from verl.utils import tensordict_utils as tu

    batch = module.make_batch(make_plan(), 0, VOCABULARY)
    data = module.for_update(batch, make_plan(ranks=3), extra={"a": 1})
    assert tu.pop(data, "mini_batch_size") == tu.get(data, "global_batch_size") == 2 * 4 * 3
    assert tu.get(data, "extra") == {"a": 1}
    assert "mini_batch_size" not in batch
