"""Scope global over ranks: each rank's scores are those of the whole batch on one rank, on any number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainer_ext.influence.against_truth import (
    Options,
    combinations,
    factors_of,
    name,
    relative_error,
    responses_of,
)
from tests.trainer_ext.influence.dealt import (
    EXCLUDING,
    FEW,
    dealt,
    disagreements,
    in_turn,
    oracle,
    parts_of,
    scores_of,
    together,
)
from tests.trainer_ext.influence.over_ranks import Part, RankPool
from tests.truth.cases import CASES, Case, random_batch
from trainer_ext.influence import InfluenceConfig, score_batch
from trainer_ext.influence.precision import PRECISIONS


def every_combination(solvers: Sequence[str]) -> list[Options]:
    """Each way to score that differs, by routes that serve it over ranks."""
    contrasts = combinations(
        contrastive_agg=("sum", "mean", "advantage"),
        exclude_self_response=(False, True),
        leave_one_out=("keep", "renorm"),
    )
    # with one direction for all nothing is left out, and only a mean has something to renormalise
    contrasts = [
        {"scope": "global", **options}
        for options in contrasts
        if options["leave_one_out"] == "keep"
        or (options["exclude_self_response"], options["contrastive_agg"]) == _MEANS
    ]
    identity = combinations(hessian_mode=("identity",), token_unit_norm=(False, True))
    inverse = combinations(hessian_source=("token", "response"), solver=tuple(solvers), true_loo=(False, True))
    return [
        {**contrast, **options}
        for contrast in contrasts
        for options in identity + inverse
        if not (options.get("true_loo") and not contrast["exclude_self_response"])
        if (options.get("hessian_source"), options.get("solver")) != ("token", "dual")
    ]


_MEANS = (True, "mean")


# the same scores


@pytest.mark.parametrize(
    ("size", "case", "solvers"),
    [
        (1, "random_batch", ["direct", "dual"]),
        (2, "random_batch", ["auto", "direct", "pcg", "dual"]),
        (3, "lonely_responses", ["auto"]),
    ],
)
def test_every_combination_is_that_of_all_ranks_batches_on_one(
    pool: RankPool, size: int, case: str, solvers: list[str]
) -> None:
    batch = CASES[case]()

    assert not disagreements(pool, size, batch, in_turn(batch, size), every_combination(solvers), 1e-9)


@pytest.mark.parametrize("case", sorted(CASES))
def test_batches_that_break_shortcuts_are_right_over_ranks_too(pool: RankPool, case: str) -> None:
    batch = CASES[case]()

    assert not disagreements(pool, 3, batch, in_turn(batch, 3), FEW, 1e-8)


@pytest.mark.parametrize("options", FEW, ids=name)
def test_fp32_is_right_to_five_digits(pool: RankPool, options: Options) -> None:
    case = random_batch(seed=21)
    scores, answers = scores_of(pool, 2, case, in_turn(case, 2), **{**options, "precision": "fp32"})

    assert answers[0].tensor.dtype == torch.float32
    assert relative_error(scores, oracle(case, options)) < 1e-5


@pytest.mark.parametrize("solver", ["direct", "pcg"])
def test_fast_is_right_to_three_digits(pool: RankPool, solver: str) -> None:
    case = random_batch(seed=22)
    options = {**EXCLUDING, "solver": solver}
    scores, _ = scores_of(pool, 2, case, in_turn(case, 2), **{**options, "precision": "fast"})

    assert relative_error(scores, oracle(case, options)) < 2e-3


@pytest.mark.parametrize("reg_lambda", [-1.0, 0.5])
@pytest.mark.parametrize(
    ("size", "ranks"),
    [
        (2, [0] * 9),  # nothing on rank 1
        (3, [1, 1, 2, 2, 1, 1, 1, 2, 1]),  # nothing on rank 0, which chooses routes
        (3, [0, 0, 0, 0, 0, 0, 0, 0, 2]),  # a response alone
    ],
)
def test_ranks_may_have_few_responses_or_none(pool: RankPool, size: int, ranks: list[int], reg_lambda: float) -> None:
    case = random_batch(seed=23)
    every = [{**options, "reg_lambda": reg_lambda, "solver": "auto"} for options in FEW]

    assert not disagreements(pool, size, case, np.array(ranks), every, 1e-9)


def test_a_rank_may_have_responses_and_no_token(pool: RankPool) -> None:
    case = random_batch(seed=24)
    silent = np.isin(case.response, [1, 4])
    case = replace(
        case,
        inputs=case.inputs[~silent],
        output_grads=case.output_grads[~silent],
        response=case.response[~silent],
    )
    ranks = np.where(np.isin(np.arange(9), [1, 4]), 1, 0)

    assert not disagreements(pool, 2, case, ranks, FEW, 1e-9)


def test_tokens_may_come_in_any_order_on_each_rank(pool: RankPool) -> None:
    case, rng = random_batch(seed=25), np.random.default_rng(0)
    order = np.argsort(case.response, kind="stable")
    together_first = replace(
        case, inputs=case.inputs[order], output_grads=case.output_grads[order], response=case.response[order]
    )
    shuffled = rng.permutation(len(order))
    mixed = replace(
        together_first,
        inputs=together_first.inputs[shuffled],
        output_grads=together_first.output_grads[shuffled],
        response=together_first.response[shuffled],
    )

    for options in FEW:
        ordered, _ = scores_of(pool, 2, together_first, in_turn(case, 2), **options)
        again, _ = scores_of(pool, 2, mixed, in_turn(case, 2), **options)
        assert torch.allclose(again, ordered[shuffled], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("solver", ["direct", "pcg"])
@pytest.mark.parametrize("size", [2, 3])
def test_scores_add_over_modules_of_any_sizes_and_number(pool: RankPool, size: int, solver: str) -> None:
    base = random_batch(seed=26)
    modules = {
        f"layer{number}.proj": replace(random_batch(seed=30 + number, k_in=k_in, k_out=k_out), response=base.response)
        for number, (k_in, k_out) in enumerate([(3, 4), (6, 2), (1, 5), (4, 4), (2, 3), (3, 4), (5, 1)])
    }
    options = {**EXCLUDING, "solver": solver}
    parts = {key: dealt(replace(case, group=base.group), in_turn(base, size), size) for key, case in modules.items()}
    asks = [
        Part([(key, shares[rank][0]) for key, shares in parts.items()], {**options, "scope": "global"})
        for rank in range(size)
    ]
    answers = pool.score(asks)
    tokens = [own for _, own in next(iter(parts.values()))]
    advantages = {key: replace(case, advantage=base.advantage) for key, case in modules.items()}
    expected = np.sum([oracle(case, options) for case in advantages.values()], axis=0)

    assert relative_error(together(answers, tokens), expected) < 1e-9
    assert list(answers[-1].routes) == list(modules)
    assert all(found is not None and found < 1e-12 for found in answers[-1].residuals.values())
    assert all(answer.most_held == size for answer in answers)  # a wave, of seven


def test_a_group_of_some_ranks_scores_among_itself(pool: RankPool) -> None:
    case = random_batch(seed=27)
    shares = dealt(case, in_turn(case, 2), 2)
    answers = pool.score([Part([("q_proj", part)], EXCLUDING) for part, _ in shares], members=(1, 2))

    scores = together(answers, [tokens for _, tokens in shares])
    assert relative_error(scores, oracle(case, EXCLUDING)) < 1e-9


def test_without_a_contrast_in_all_ranks_together_there_are_no_scores(pool: RankPool) -> None:
    case = random_batch(seed=28)
    case = replace(case, accepted=np.ones(9, dtype=bool))
    scores, answers = scores_of(pool, 2, case, in_turn(case, 2))

    assert bool(scores.isnan().all())
    assert [answer.routes for answer in answers] == [{"q_proj": "none"}] * 2


def test_a_contrast_may_need_responses_of_two_ranks(pool: RankPool) -> None:
    case = random_batch(seed=29)

    assert not disagreements(pool, 2, case, case.accepted.astype(np.int64), FEW, 1e-9)


def test_a_rank_without_tokens_computes_where_the_others_do(pool: RankPool) -> None:
    case = random_batch(seed=45)
    shares = dealt(case, np.zeros(9, dtype=np.int64), 2)
    parts = parts_of([part for part, _ in shares], **{**EXCLUDING, "precision": "auto"})
    answers = pool.score([parts[0], replace(parts[1], device="meta")])

    assert relative_error(answers[0].tensor, oracle(case, EXCLUDING)) < 1e-5
    assert answers[1].tensor.shape == (0,)


# float16 rows of ranks whose gradients differ in size


def uneven_sizes(powers: Sequence[int]) -> Case:
    """Gradients of the responses dealt to rank r are 2^powers[r] as large."""
    case = random_batch(seed=40)
    power = np.asarray(powers)[case.response % len(powers)][:, None]
    return replace(case, output_grads=case.output_grads * 2.0**power)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("reg_lambda", [-1.0, 3.0])
@pytest.mark.parametrize("options", FEW, ids=name)
@pytest.mark.parametrize("powers", [(0, 7), (-30, -21), (12, 0, -9)])
def test_float16_rows_mean_the_same_on_ranks_of_different_scale(
    pool: RankPool, powers: tuple[int, ...], options: Options, reg_lambda: float, stored: bool
) -> None:
    case, size = uneven_sizes(powers), len(powers)
    options = {**options, "precision": "fast", "reg_lambda": reg_lambda}
    shares = dealt(case, in_turn(case, size), size)
    parts = [Part([("q_proj", part)], options, torch.float32, stored) for part, _ in shares]
    scores = together(pool.score(parts), [tokens for _, tokens in shares])

    by_rank = case.response % size
    assert relative_error(scores, oracle(case, options), by_rank) < 5e-3
    alone = score_batch(
        {"q_proj": factors_of(case)}, responses_of(case), InfluenceConfig(**{**options, "scope": "all_selected"})
    ).scores
    assert relative_error(scores, alone.double().numpy(), by_rank) < 2e-3


def test_a_rank_without_gradients_does_not_set_the_unit_of_tiny_ones(pool: RankPool) -> None:
    case = random_batch(seed=41)
    tiny = replace(case, inputs=case.inputs * 2.0**-60, output_grads=case.output_grads * 2.0**-100)
    silent = case.response % 3 == 1
    tiny = replace(tiny, inputs=np.where(silent[:, None], 0.0, tiny.inputs))
    keep = case.response % 3 != 2  # rank 2 has no token, rank 1 no gradient
    tiny = replace(tiny, inputs=tiny.inputs[keep], output_grads=tiny.output_grads[keep], response=tiny.response[keep])
    options = {**EXCLUDING, "precision": "fast"}
    scores, _ = scores_of(pool, 3, tiny, in_turn(tiny, 3), **options)

    assert relative_error(scores, oracle(tiny, options)) < 2e-3


def test_gradients_that_are_all_zero_score_zero(pool: RankPool) -> None:
    case = replace(random_batch(seed=42), inputs=np.zeros((60, 3)))

    for precision in ("fast", "fp64"):
        for options in FEW:
            scores, _ = scores_of(pool, 2, case, in_turn(case, 2), **{**options, "precision": precision})
            assert not scores.any()


# what is reported


@pytest.mark.parametrize("source", ["token", "response"])
def test_all_ranks_report_one_route_residual_and_prediction(pool: RankPool, source: str) -> None:
    case = random_batch(seed=43)
    _, answers = scores_of(pool, 3, case, np.array([0] * 6 + [1, 2, 2]), **EXCLUDING, hessian_source=source)
    first = answers[0]

    assert all(answer.routes == first.routes for answer in answers)
    assert all(answer.residuals == first.residuals for answer in answers)
    assert all(answer.predicted == first.predicted for answer in answers)
    residual = first.residuals["q_proj"]
    assert residual is not None
    assert residual < 1e-12
    assert first.routes["q_proj"] in (("direct", "pcg") if source == "token" else ("dual",))
    assert len(first.predicted) == (1 if source == "token" else 0)
    assert len(first.logged) == len(first.predicted)
    assert all(f"route {first.routes['q_proj']} for 1 modules" in line for line in first.logged)
    assert not any(answer.logged for answer in answers[1:])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("options", FEW, ids=name)
def test_no_more_memory_is_taken_than_was_counted(pool: RankPool, options: Options, precision: str) -> None:
    case = random_batch(seed=46, tokens=600, k_in=16, k_out=20)
    shares = dealt(case, in_turn(case, 3), 3)
    modules = [f"layer{number}" for number in range(4)]
    options = {**options, "precision": precision, "residual_tolerance": 1e-2}  # an iteration takes what a hundred do
    parts = [Part([(key, part) for key in modules], options, torch.float32) for part, _ in shares]
    pool.score(parts)  # what is kept from call to call is there
    busiest = pool.score([replace(parts[0], watched=True), *parts[1:]])[0]  # which leads two of the modules
    assert 0 < busiest.allocated_bytes <= busiest.claimed_bytes < 10 * busiest.allocated_bytes


def test_identity_reports_no_residual(pool: RankPool) -> None:
    case = random_batch(seed=44)
    _, answers = scores_of(pool, 2, case, in_turn(case, 2), hessian_mode="identity")

    assert [(answer.routes, answer.residuals) for answer in answers] == [({"q_proj": "identity"}, {"q_proj": None})] * 2
