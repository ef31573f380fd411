"""Gradients taken out of the update's own backward pass give the scores that a pass of their own gives."""

from __future__ import annotations

import gzip
import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from tests.trainer_ext.verl_plugin.engine_world import (
    Rows,
    jagged,
    make_batch,
    make_config,
    parameters,
    request,
    score,
    traced,
    update,
    worker_of,
)

FUNCTIONS = ("log_prob_reward", "log_prob_advantage")
ROWS = Rows(
    [
        ("a", [5, 6, 7, 8], [50, 51, 52], 1.0, 0.9),
        ("a", [5, 6, 7, 8], [60, 61, 62, 63, 64], 0.0, -1.1),
        ("b", [30, 31], [70, 2], 0.0, 0.0),  # no weight in the loss, and yet a part of the contrast
        ("b", [30, 31], [71, 72, 73, 74], 1.0, 1.3),
        ("b", [30, 31], [75], 0.0, -0.6),
        ("c", [40, 41, 42], [80, 81], 1.0, 0.0),  # alone: no contrast
    ]
)
TOKENS = sum(map(len, ROWS.responses))
SCORING = {
    "hessian_mode": "inverse",
    "contrastive_agg": "mean",
    "projection_dim_factor": 8,
    "precision": "fp32",
    "skip_optimizer_step": True,
}
MICRO_BATCHES = {
    "one": {"micro_batch_size_per_gpu": 6},
    "three": {"micro_batch_size_per_gpu": 2},
    "dynamic": {"use_dynamic_bsz": True, "max_token_len_per_gpu": 12},
}

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def batch_of(**settings: Any) -> TensorDict:
    """Old log-probabilities are off by more than bfloat16 ever makes them."""
    generator = torch.Generator().manual_seed(0)
    old = [-5.6 + 0.1 * torch.randn(len(response), generator=generator) for response in ROWS.responses]
    return make_batch(ROWS, old, **{**MICRO_BATCHES["one"], **settings})


@pytest.fixture(scope="module")
def separate(worker: Any) -> dict[str, Tensor]:
    """Scores from a pass of their own over one padded micro-batch, by output function."""
    checkpoint(worker, False)
    return {name: scores_of(worker, batch_of(), inline=False, output_function=name) for name in FUNCTIONS}


def checkpoint(worker: Any, on: bool) -> None:
    module = worker.actor.engine.module
    if on:
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        module.gradient_checkpointing_disable()


def scores_of(worker: Any, batch: TensorDict, inline: bool, **changes: Any) -> Tensor:
    scores, mask, report = traced(worker, batch, request(inline, **{**SCORING, **changes}))
    assert report["tokens"] == TOKENS
    assert torch.equal(torch.isnan(scores.values()), ~mask.values())
    return scores.values()


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert int(expected.isnan().sum()) == len(ROWS.responses[-1])
    scale = float(expected.nan_to_num().abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * scale, equal_nan=True)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("packed", "checkpointing"), list(product([False, True], repeat=2)))
def test_inline_and_separate_capture_agree(
    worker: Any, separate: dict[str, Tensor], function: str, packed: bool, checkpointing: bool
) -> None:
    checkpoint(worker, checkpointing)
    for settings in MICRO_BATCHES.values():
        for inline in (True, False):
            batch = batch_of(use_remove_padding=packed, **settings)
            assert_same(scores_of(worker, batch, inline, output_function=function), separate[function])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_later_epochs_and_later_mini_batches_of_the_same_weights_change_nothing(
    worker: Any, separate: dict[str, Tensor], function: str
) -> None:
    batch = batch_of(epochs=2, mini_batch_size=3, micro_batch_size_per_gpu=3)
    assert_same(scores_of(worker, batch, True, output_function=function), separate[function])


def test_a_share_of_the_tokens_gets_the_same_scores_either_way(worker: Any) -> None:
    asked = {**SCORING, "output_function": "log_prob_reward", "max_tokens_per_response": 2}
    inline, separate = (traced(worker, batch_of(), request(way, **asked))[0].values() for way in (True, False))
    assert int((~inline.isnan()).sum()) == 9
    torch.testing.assert_close(
        inline, separate, rtol=1e-4, atol=1e-4 * float(separate.nan_to_num().abs().max()), equal_nan=True
    )


@pytest.mark.parametrize("aggregation", ["seq-mean-token-mean", "seq-mean-token-sum-norm"])
def test_the_losss_aggregation_does_not_matter(
    model_folder: Path, separate: dict[str, Tensor], aggregation: str
) -> None:
    with worker_of(make_config(model_folder, f"actor_rollout_ref.actor.loss_agg_mode={aggregation}")) as other:
        for name in FUNCTIONS:
            assert_same(scores_of(other, batch_of(), True, output_function=name), separate[name])


def test_tokens_that_weigh_differently_are_noticed_before_anything_is_scored(worker: Any) -> None:
    batch = batch_of()
    batch["advantages"] = jagged([[1.0 + 0.1 * t for t in range(len(r))] for r in ROWS.responses], torch.float32)
    asked = request(**{**SCORING, "output_function": "log_prob_reward"})
    update(worker, batch, asked)
    with pytest.raises(RuntimeError, match=r"does not weigh all tokens .* set influence.capture=separate"):
        score(worker, batch, asked)


def test_inline_capture_trains_as_an_update_whose_old_policy_is_the_present_one(model_folder: Path) -> None:
    asked = request(**{**SCORING, "output_function": "log_prob_reward", "skip_optimizer_step": False})
    config = make_config(model_folder)
    with worker_of(config) as tapped:
        own = scores_of(tapped, batch_of(), False, output_function="log_prob_reward")
        metrics = update(tapped, batch_of(), asked)
        scores, _, _ = score(tapped, batch_of(), asked)
        trained = parameters(tapped)
    assert_same(scores.values(), own)
    assert {float(value) for value in metrics["actor/ppo_kl"]} == {0.0}
    with worker_of(config) as plain:
        before = parameters(plain)
        data = batch_of()
        data["old_log_probs"] = present_log_probs(plain, data)
        plain.actor.train_mini_batch(data)
        expected = parameters(plain)
    for name, weights in expected.items():
        torch.testing.assert_close(trained[name] - before[name], weights - before[name], rtol=1e-3, atol=1e-6)


def present_log_probs(worker: Any, batch: TensorDict) -> Tensor:
    from verl.utils import tensordict_utils as tu
    from verl.workers.utils.padding import response_from_nested

    data = batch.copy()
    tu.assign_non_tensor(data, compute_loss=False, micro_batch_size_per_gpu=6)
    return response_from_nested(worker.actor.infer_batch(data)["log_probs"], batch["response_mask"])


def test_timings_and_counters_are_read_one_without_the_other(worker: Any) -> None:
    asked = request(**{**SCORING, "output_function": "log_prob_reward"})
    worker.take_pass_timings()
    worker.actor.counters.read()
    update(worker, batch_of(), asked)
    _, _, report = score(worker, batch_of(), asked)  # reads the counters
    seconds = worker.take_pass_timings()
    assert report["tokens"] == TOKENS
    assert all(value > 0 for value in seconds.values()), "one response took a pass of its own"
    update(worker, batch_of(), asked)
    worker.take_pass_timings()
    assert score(worker, batch_of(), asked)[2]["tokens"] == TOKENS


@pytest.mark.parametrize("inline", [True, False])
def test_a_profiled_step_leaves_a_trace_of_update_and_scoring(worker: Any, tmp_path: Path, inline: bool) -> None:
    asked = {**request(inline, **SCORING, output_function="log_prob_reward"), "profile": str(tmp_path / "profile")}
    for part in (update, score) if inline else (score, update):
        part(worker, batch_of(), asked)
    (file,) = (tmp_path / "profile").iterdir()
    assert file.name == "step_000001_rank0.json.gz"
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    assert {"update", "influence", "aten::mm"} <= {event["name"] for event in events}
