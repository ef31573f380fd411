"""Scope global over GPUs, one process and one GPU a rank, through NCCL: the scores of the whole batch on one rank.

Needs no more than torch, numpy and pytest. Runs on as many GPUs as there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer_ext.influence.against_truth import Options, name, relative_error, rms_error, truth
from tests.trainer_ext.influence.dealt import dealt, together
from tests.trainer_ext.influence.over_ranks import Answer, Part, RankPool
from tests.truth.brute_force import Floats
from tests.truth.cases import CASES, Case, random_batch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"),
]

EXCLUDING: Options = {"scope": "global", "exclude_self_response": True}
FEW: list[Options] = [
    {"hessian_mode": "identity", **EXCLUDING},
    {"solver": "direct", **EXCLUDING},
    {"solver": "direct", "scope": "global"},
    {"solver": "direct", "true_loo": True, **EXCLUDING},
    {"solver": "pcg", **EXCLUDING},
    {"solver": "auto", "contrastive_agg": "advantage", **EXCLUDING},
    {"hessian_source": "response", **EXCLUDING},
    {"hessian_source": "response", "solver": "direct", "true_loo": True, **EXCLUDING},
]
TOLERANCES = {"fp64": 1e-8, "fp32": 1e-5, "fast": 3e-3}
SMALL: dict[str, Callable[[], Case]] = {
    "many_tokens": lambda: random_batch(tokens=400),
    **{key: CASES[key] for key in ("lonely_responses", "fewer_tokens_than_dim")},
}


def _pool(backend: str) -> RankPool:
    return RankPool(torch.cuda.device_count(), backend, gpus=True)


@pytest.fixture(scope="module")
def pool() -> Iterator[RankPool]:
    """NCCL beside gloo, as trainers start it."""
    started = _pool("cpu:gloo,cuda:nccl")
    yield started
    started.close()


@cache
def _truth(case: str, options: tuple[tuple[str, Any], ...]) -> Floats:
    return _oracle(SMALL[case](), dict(options))


def _oracle(case: Case, options: Options) -> Floats:
    return truth(case, **{**options, "scope": "all_selected"})


def _scores(pool: RankPool, case: Case, options: Options, *, stored: bool = False) -> tuple[torch.Tensor, list[Answer]]:
    shares = dealt(case, np.arange(len(case.group)) % pool.size, pool.size)
    dtype = torch.float32 if stored else torch.float64
    answers = pool.score([Part([("q_proj", part)], options, dtype, stored) for part, _ in shares])
    return together(answers, [tokens for _, tokens in shares]), answers


@pytest.mark.parametrize("options", FEW, ids=name)
@pytest.mark.parametrize("precision", sorted(TOLERANCES))
def test_scores_are_those_of_all_ranks_batches_in_one(pool: RankPool, precision: str, options: Options) -> None:
    for case in SMALL:
        scores, answers = _scores(pool, SMALL[case](), {**options, "precision": precision})

        expected = _truth(case, tuple(options.items()))
        assert relative_error(scores, expected) < TOLERANCES[precision], (case, answers[0])
        assert all(answer.residuals == answers[0].residuals for answer in answers)


@pytest.mark.parametrize("options", FEW, ids=name)
def test_float16_rows_mean_the_same_on_ranks_of_different_scale(pool: RankPool, options: Options) -> None:
    case = random_batch(seed=40, tokens=200)
    rank = case.response % pool.size
    case = replace(case, output_grads=case.output_grads * 2.0 ** (7 * (rank % 2) - 20)[:, None])
    for reg_lambda in (-1.0, 1e-6):
        asked = {**options, "reg_lambda": reg_lambda}
        scores, _ = _scores(pool, case, {**asked, "precision": "fast"}, stored=True)

        assert relative_error(scores, _oracle(case, asked), rank) < 1e-2


def test_a_rank_may_have_no_response(pool: RankPool) -> None:
    case = random_batch(seed=42)
    shares = dealt(case, np.full(9, pool.size - 1), pool.size)
    for options in FEW:
        answers = pool.score([Part([("q_proj", part)], {**options, "precision": "fast"}) for part, _ in shares])
        assert relative_error(answers[-1].tensor, _oracle(case, options)) < TOLERANCES["fast"]


def test_an_error_on_one_rank_reaches_all(pool: RankPool) -> None:
    _assert_errors_reach_all(pool)


def _assert_errors_reach_all(pool: RankPool) -> None:
    case = random_batch(seed=43)
    shares = [part for part, _ in dealt(case, np.arange(9) % pool.size, pool.size)]
    shares[-1] = replace(shares[-1], response=shares[-1].response + 9)
    answers = pool.score([Part([("q_proj", part)], EXCLUDING) for part in shares])

    assert {answer.error for answer in answers} == {"ValueError"}
    scores, _ = _scores(pool, case, {**EXCLUDING, "precision": "fp64"})
    assert relative_error(scores, _oracle(case, EXCLUDING)) < 1e-8


@pytest.mark.parametrize("backend", ["nccl", "gloo"])
def test_other_backends_do_the_same(backend: str) -> None:
    """NCCL alone, which carries even small objects; and gloo alone, with messages that go through the host."""
    pool = _pool(backend)
    try:
        for options in FEW:
            scores, _ = _scores(pool, SMALL["many_tokens"](), {**options, "precision": "fast"})
            assert relative_error(scores, _truth("many_tokens", tuple(options.items()))) < TOLERANCES["fast"]
        _assert_errors_reach_all(pool)
    finally:
        pool.close()


def wide_batch(tokens: int, k_in: int, k_out: int, responses: int = 24) -> Case:
    """Rows of a size that fills the tensor cores' tiles; every response as long as every other."""
    rng = np.random.default_rng(44)
    return Case(
        inputs=rng.normal(size=(tokens, k_in)) + 0.5,
        output_grads=rng.normal(size=(tokens, k_out)) * rng.lognormal(sigma=1.0, size=(tokens, 1)),
        response=np.sort(np.arange(tokens) % responses),
        group=np.zeros(responses, dtype=np.int64),
        accepted=rng.random(responses) < 0.4,
        advantage=rng.normal(size=responses),
    )


@pytest.mark.parametrize("options", FEW, ids=name)
def test_large_modules_agree_with_one_rank_in_every_precision_and_stay_in_their_memory(
    pool: RankPool, options: Options
) -> None:
    case = wide_batch(20_000, 64, 32)
    alone = pool.score([Part([("q_proj", case)], {**options, "precision": "fp64"})])[0].tensor.numpy()

    for precision, bound in (("fp64", 1e-9), ("fp32", 1e-5), ("fast", 2e-3)):
        scores, answers = _scores(pool, case, {**options, "precision": precision}, stored=precision == "fast")
        assert rms_error(scores, alone) < bound, precision
        for answer in answers:
            assert answer.allocated_bytes <= answer.claimed_bytes + 64 * 2**20
