"""Scope global in the plugin: ranks with batches of their own, scored and masked as one batch on one rank would be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.trainer_ext.influence.over_ranks import RankPool
from tests.trainer_ext.verl_plugin import conftest as _environment  # noqa: F401  before verl, in the ranks' processes too
from trainer_ext.influence import FactorStore, InfluenceConfig, ModuleFactors, Responses, score_batch

OPTIONS = {"scope": "global", "precision": "fp64", "exclude_self_response": True}
DIMS = {"q_proj": (3, 2), "k_proj": (3, 4)}
CAPTURED = 2
"""Tokens of a response that are scored; responses are longer."""
Row = tuple[str, int, float]
"""Prompt, length of the response (0: a row that verl added as padding), reward."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one rank has of a step."""

    rows: Sequence[Row]
    factors: dict[str, tuple[Tensor, Tensor]]
    """Inputs [T, k_in] and output gradients [T, k_out] of the captured tokens by module."""


def owners(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Number of the response of each captured token, and its index there."""
    real = [row for row in rows if row[1]]
    return torch.arange(len(real)).repeat_interleave(CAPTURED), torch.arange(CAPTURED).repeat(len(real))


def batch_of(rows: Sequence[Row], seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    tokens = len(owners(rows)[0])
    sides = {
        name: tuple(torch.randn(tokens, k, generator=generator, dtype=torch.float64) for k in dims)
        for name, dims in DIMS.items()
    }
    return Batch(rows, {name: (inputs, grads) for name, (inputs, grads) in sides.items()})


def scored(group: dist.ProcessGroup | None, _: torch.device, batch: Batch) -> Any:
    """Scores and mask of each row, and the number of scored tokens, from one rank."""
    from verl.utils import tensordict_utils as tu

    from trainer_ext.verl_plugin.tap import Captured
    from trainer_ext.verl_plugin.worker import score_rows

    def jagged(rows: list[list[float]], dtype: torch.dtype) -> Tensor:
        return torch.nested.as_nested_tensor([torch.tensor(row, dtype=dtype) for row in rows], layout=torch.jagged)

    data = tu.get_tensordict(
        {
            "response_mask": jagged([[1] * length or [0] for _, length, _ in batch.rows], torch.int64),
            "rm_scores": jagged([[reward] * (length or 1) for _, length, reward in batch.rows], torch.float32),
            "advantages": jagged([[reward] * (length or 1) for _, length, reward in batch.rows], torch.float32),
            "uid": [uid for uid, _, _ in batch.rows],
            "extra_fields": [{"reward_extra_info": {"acc": reward}} for _, _, reward in batch.rows],
        }
    )
    response, token = owners(batch.rows)
    store = FactorStore(DIMS, precision="fp64")
    opened = store.open(response)
    for name, (inputs, output_grads) in batch.factors.items():
        if len(response):
            store.put(opened, name, store.round_inputs(inputs), output_grads)
    captured = Captured(store.take(), response, token)
    scores, mask, report = score_rows(
        data, captured, InfluenceConfig.from_mapping(OPTIONS), {"accepted_threshold": 0.5}, group
    )
    return [row.tolist() for row in scores.unbind()], [row.tolist() for row in mask.unbind()], report["scored_tokens"]


def of_one_rank(batches: Sequence[Batch]) -> list[list[float]]:
    """Scores of the captured tokens of each response, rank after rank, from all tokens in one place."""
    rows = [row for batch in batches for row in batch.rows if row[1]]
    response, _ = owners(rows)
    joined = {
        name: ModuleFactors(*(torch.cat([batch.factors[name][side] for batch in batches]) for side in (0, 1)), response)
        for name in DIMS
    }
    rewards = torch.tensor([reward for _, _, reward in rows])
    responses = Responses(torch.zeros(len(rows), dtype=torch.int64), rewards > 0.5, rewards)
    config = InfluenceConfig.from_mapping({**OPTIONS, "scope": "all_selected"})
    return score_batch(joined, responses, config).scores.reshape(-1, CAPTURED).tolist()


BATCHES = {
    "a kind a rank": ([("a", 3, 1.0), ("a", 2, 1.0)], [("b", 4, 0.0), ("", 0, 0.0), ("b", 2, 0.0)]),
    "both kinds on each": ([("a", 3, 1.0), ("b", 2, 0.0)], [("b", 4, 0.0), ("c", 2, 1.0)]),
    "one rank has padding alone": ([("a", 3, 1.0), ("a", 2, 0.0)], [("", 0, 0.0), ("", 0, 0.0)]),
    "no contrast among all ranks": ([("a", 3, 1.0), ("a", 2, 1.0)], [("b", 2, 1.0)]),
}


def test_each_rank_gets_scores_and_mask_of_its_tokens_in_the_whole_batch() -> None:
    pool = RankPool(2, preload=(__name__, "trainer_ext.verl_plugin.worker"))  # one test, since it is slow to start
    try:
        for name, ranks in BATCHES.items():
            batches = [batch_of(rows, seed) for seed, rows in enumerate(ranks)]
            check(name, batches, pool.ask(scored, batches))
    finally:
        pool.close()


def check(name: str, batches: Sequence[Batch], answers: Sequence[Any]) -> None:
    expected = iter(of_one_rank(batches))
    has_contrast = not name.startswith("no contrast")
    for batch, (scores, mask, count) in zip(batches, answers, strict=True):
        for (_, length, _), row, due in zip(batch.rows, scores, mask, strict=True):
            captured = [index < CAPTURED for index in range(length)] or [False]
            assert due == [has_contrast and here for here in captured], name
            assert [value == value for value in row] == due, name  # NaN exactly where the mask is false
            if length:
                wanted = next(expected)
                if has_contrast:
                    assert row[:CAPTURED] == pytest.approx(wanted, rel=1e-6), name
        assert count == (len(owners(batch.rows)[0]) if has_contrast else 0), name
