"""Every mode of the trace in verl's own engine with FSDP2 on two ranks, against one rank that has all rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainer_ext.verl_plugin.engine_world import (
    Rows,
    make_batch,
    make_config,
    on_ranks,
    request,
    update,
    worker_of,
)
from tests.trainer_ext.verl_plugin.projected import projected_updates, write_directions
from trainer_ext.assets import tiny_qwen2
from trainer_ext.influence import InfluenceConfig
from trainer_ext.verl_plugin.worker import score_rows

ROWS = [
    ("a", [5, 6, 7, 8], [50, 51, 52], 1.0, 0.9),
    ("a", [5, 6, 7, 8], [60, 61, 62, 63, 64], 0.0, -1.1),
    ("a", [5, 6, 7, 8], [90, 91], 0.0, 0.0),  # no weight in the loss, and yet a part of the contrast
    ("a", [5, 6, 7, 8], [92], 1.0, 0.2),
    ("b", [30, 31], [71, 72, 73, 74], 1.0, 1.3),
    ("b", [30, 31], [75, 76], 0.0, -0.6),
    ("c", [40, 41, 42], [80, 81], 1.0, 0.0),  # no contrast, unless with the other prompts
    ("c", [40, 41, 42], [82, 83, 84], 1.0, 0.0),
]
HALVES = ROWS[:4], ROWS[4:]
CAPTURES = [
    ("training_loss", True),
    *product(("log_prob_reward", "log_prob_advantage"), (True, False)),
]
"""Output function, and whether the update's own pass is tapped."""
SCOPES = ("per_prompt", "all_selected", "global")
MODES, SOURCES = ("identity", "inverse"), ("token", "response")
Projected = tuple[dict[str, Tensor], dict[str, float]]
"""Weights after updates, and metrics."""
Scores = dict[tuple[str, bool, str, str, str], Tensor]
"""[tokens] by output function, inline, mode, source and scope."""

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def all_modes(worker: Any, rows: list[Any], world: int, scopes: Sequence[str] = SCOPES) -> Scores:
    """Capture each way, and score what was captured in all modes."""

    def batch() -> Any:
        old = [torch.full((len(row[2]),), -5.6) for row in rows]
        return make_batch(Rows(rows), old, world=world, micro_batch_size_per_gpu=2)

    scores = {}
    for function, inline in CAPTURES:
        captured = None
        for scope, mode, source in product(scopes, MODES, SOURCES):
            asked = request(
                inline,
                output_function=function,
                scope=scope,
                hessian_mode=mode,
                hessian_source=source,
                skip_optimizer_step=True,
                projection_dim_factor=8,
                contrastive_agg="mean",
                precision="fp32",
            )
            # of all that says how to score, a capture depends on the scope alone: who takes a pass of their own
            if captured is None or (
                (function, inline) == ("log_prob_reward", True) and (mode, source) == (MODES[0], SOURCES[0])
            ):
                captured = capture(worker, batch(), asked)
            found, mask, _ = score_rows(batch(), captured, InfluenceConfig.from_mapping(asked["config"]), asked)
            assert torch.equal(found.values().isnan(), ~mask.values())
            scores[function, inline, mode, source, scope] = found.values()
    return scores


def capture(worker: Any, batch: Any, asked: dict[str, Any]) -> Any:
    """What was captured, to be read as often as wanted."""
    config = InfluenceConfig.from_mapping(asked["config"])
    if asked["inline"]:
        update(worker, batch, asked)
    else:
        worker.actor.capture_pass(batch, config)
    captured = worker.actor.tap(config).take()
    return dataclasses.replace(captured, modules=dict(captured.modules.items()))


def one_rank(rank: int, world: int, port: int, folder: Path) -> tuple[Scores, Projected]:
    with worker_of(make_config(folder), rank, world, port) as worker:
        return all_modes(worker, HALVES[rank], world), projected_updates(worker, folder, HALVES[rank], world)


def expected(model_folder: Path) -> tuple[Scores, Projected]:
    """What a group of responses comes to on one rank that holds nothing else of the scope; and its updates with all rows."""
    with worker_of(make_config(model_folder)) as worker:
        whole = all_modes(worker, ROWS, 1, ("per_prompt", "global"))
        first, second = (all_modes(worker, half, 1, ("all_selected",)) for half in HALVES)
        projected = projected_updates(worker, model_folder, ROWS)
    answers = {**whole, **{case: torch.cat([first[case], second[case]]) for case in first}}
    return {case: answer * loss_ratio(*case) for case, answer in answers.items()}, projected


def loss_ratio(function: str, _inline: bool, mode: str, _source: str, scope: str) -> Tensor:
    """[tokens]: by how much two ranks' scores differ from those of one rank because their losses do."""
    tokens = [sum(len(row[2]) for row in half) for half in HALVES]
    ratio = torch.ones(2)
    if function == "training_loss" and mode == "identity":
        ratio *= 2  # verl multiplies the loss by the number of ranks, since FSDP averages gradients
        if scope == "all_selected":  # it is a mean over all tokens of the batch, and half a batch has fewer
            ratio *= torch.tensor(tokens) / sum(tokens)
    return (ratio**2).repeat_interleave(torch.tensor(tokens))


def test_two_ranks_score_and_project_as_one_rank_would_whichever_pass_they_capture(tmp_path: Path) -> None:
    """One test, since the processes start once for it."""
    tiny_qwen2.make(tmp_path, seed=0)
    write_directions(tmp_path)
    (first, first_projected), (second, second_projected) = on_ranks(2, one_rank, tmp_path)
    two_ranks = {case: torch.cat([first[case], second[case]]) for case in first}
    one, projected = expected(tmp_path)
    assert_same_updates(first_projected, second_projected, projected)
    assert len(two_ranks) == len(one) == 5 * 2 * 2 * 3
    wrong = {case: error for case, found in two_ranks.items() if not (error := difference(found, one[case])) < 1e-4}
    assert not wrong, "against one rank"
    pairs = {case: (case[0], False, *case[2:]) for case in two_ranks if case[1] and case[0] != "training_loss"}
    differ = {
        case: error for case, own in pairs.items() if not (error := difference(two_ranks[case], two_ranks[own])) < 1e-4
    }
    assert not differ, "inline against separate"


def assert_same_updates(first: Projected, second: Projected, one: Projected) -> None:
    """Weights and figures after projected updates: the same on both ranks, and those of one rank with all rows."""
    (weights, metrics), (other_weights, other_metrics), (expected_weights, expected_metrics) = first, second, one
    assert metrics == other_metrics == pytest.approx(expected_metrics, rel=1e-3, abs=1e-6)
    for name, weight in expected_weights.items():
        assert torch.equal(weights[name], other_weights[name])
        assert torch.allclose(weights[name], weight, atol=1e-5), name


def difference(found: Tensor, answer: Tensor) -> float:
    """Largest difference, as a share of the largest score; infinite where one has a score and the other none."""
    if not torch.equal(found.isnan(), answer.isnan()):
        return float("inf")
    return float((found - answer).nan_to_num().abs().max() / answer.nan_to_num().abs().max())
