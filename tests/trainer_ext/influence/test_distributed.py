"""Scope global over ranks: each rank's scores are those of the whole batch on one rank, and errors reach all ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

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
    truth,
)
from tests.trainer_ext.influence.over_ranks import Answer, Part, RankPool, dealt, together
from tests.truth.brute_force import Floats, Integers
from tests.truth.cases import CASES, Case, random_batch
from trainer_ext.influence import InfluenceConfig, score_batch

Pools = Callable[[int], RankPool]

EXCLUDING: Options = {"scope": "global", "precision": "fp64", "exclude_self_response": True}


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    """A pool by its number of ranks, started when it is first asked for."""
    started: dict[int, RankPool] = {}

    def pool(size: int) -> RankPool:
        if size not in started:
            started[size] = RankPool(size)
        return started[size]

    yield pool
    for one in started.values():
        one.close()


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


def oracle(case: Case, options: Options) -> Floats:
    return truth(case, **{**options, "scope": "all_selected"})


def in_turn(case: Case, size: int) -> Integers:
    """Ranks of responses: dealt out like cards."""
    return np.arange(len(case.group)) % size


def parts_of(cases: Sequence[Case], **options: Any) -> list[Part]:
    return [Part([("q_proj", case)], {"scope": "global", "precision": "fp64", **options}) for case in cases]


def scores_of(pool: RankPool, case: Case, ranks: Integers, **options: Any) -> tuple[torch.Tensor, list[Answer]]:
    """[T] of the whole case, and what each rank said."""
    shares = dealt(case, ranks, pool.size)
    answers = pool.score(parts_of([part for part, _ in shares], **options))
    return together(answers, [tokens for _, tokens in shares]), answers


def disagreements(
    pool: RankPool, case: Case, ranks: Integers, every: Sequence[Options], tolerance: float, **more: Any
) -> list[str]:
    """One line for each of the options with which the ranks' scores are not the oracle's of the whole case."""
    lines, known = [], dict[str, Floats]()
    for options in every:
        asked = {key: value for key, value in options.items() if key != "solver"}
        if name(asked) not in known:
            known[name(asked)] = oracle(case, asked)
        scores, answers = scores_of(pool, case, ranks, **options, **more)
        error = relative_error(scores, known[name(asked)])
        if not error < tolerance:
            lines.append(f"{name(options)}: {error:.1e}, {answers[0].routes}, {answers[0].residuals}")
    return lines


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
    pools: Pools, size: int, case: str, solvers: list[str]
) -> None:
    batch = CASES[case]()

    assert not disagreements(pools(size), batch, in_turn(batch, size), every_combination(solvers), 1e-9)


FEW: list[Options] = [
    {"hessian_mode": "identity", **EXCLUDING},
    {"solver": "direct", **EXCLUDING},
    {"solver": "pcg", "true_loo": True, **EXCLUDING},
    {"hessian_source": "response", "contrastive_agg": "advantage", **EXCLUDING},
]


@pytest.mark.parametrize("case", sorted(CASES))
def test_batches_that_break_shortcuts_are_right_over_ranks_too(pools: Pools, case: str) -> None:
    batch = CASES[case]()

    assert not disagreements(pools(3), batch, in_turn(batch, 3), FEW, 1e-8)


@pytest.mark.parametrize("options", FEW, ids=name)
def test_fp32_is_right_to_five_digits(pools: Pools, options: Options) -> None:
    case = random_batch(seed=21)
    scores, answers = scores_of(pools(2), case, in_turn(case, 2), **{**options, "precision": "fp32"})

    assert answers[0].tensor.dtype == torch.float32
    assert relative_error(scores, oracle(case, options)) < 1e-5


@pytest.mark.parametrize("solver", ["direct", "pcg"])
def test_fast_is_right_to_three_digits(pools: Pools, solver: str) -> None:
    case = random_batch(seed=22)
    options = {**EXCLUDING, "solver": solver}
    scores, _ = scores_of(pools(2), case, in_turn(case, 2), **{**options, "precision": "fast"})

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
def test_ranks_may_have_few_responses_or_none(pools: Pools, size: int, ranks: list[int], reg_lambda: float) -> None:
    case = random_batch(seed=23)
    every = [{**options, "reg_lambda": reg_lambda, "solver": "auto"} for options in FEW]

    assert not disagreements(pools(size), case, np.array(ranks), every, 1e-9)


def test_a_rank_may_have_responses_and_no_token(pools: Pools) -> None:
    case = random_batch(seed=24)
    silent = np.isin(case.response, [1, 4])
    case = replace(
        case,
        inputs=case.inputs[~silent],
        output_grads=case.output_grads[~silent],
        response=case.response[~silent],
    )
    ranks = np.where(np.isin(np.arange(9), [1, 4]), 1, 0)

    assert not disagreements(pools(2), case, ranks, FEW, 1e-9)


def test_tokens_may_come_in_any_order_on_each_rank(pools: Pools) -> None:
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
        ordered, _ = scores_of(pools(2), together_first, in_turn(case, 2), **options)
        again, _ = scores_of(pools(2), mixed, in_turn(case, 2), **options)
        assert torch.allclose(again, ordered[shuffled], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("solver", ["direct", "pcg"])
@pytest.mark.parametrize("size", [2, 3])
def test_scores_add_over_modules_of_any_sizes_and_number(pools: Pools, size: int, solver: str) -> None:
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
    answers = pools(size).score(asks)
    tokens = [own for _, own in next(iter(parts.values()))]
    advantages = {key: replace(case, advantage=base.advantage) for key, case in modules.items()}
    expected = np.sum([oracle(case, options) for case in advantages.values()], axis=0)

    assert relative_error(together(answers, tokens), expected) < 1e-9
    assert list(answers[-1].routes) == list(modules)
    assert all(found is not None and found < 1e-12 for found in answers[-1].residuals.values())


def test_a_group_of_some_ranks_scores_among_itself(pools: Pools) -> None:
    case = random_batch(seed=27)
    shares = dealt(case, in_turn(case, 2), 2)
    members = (1, 2)
    part = Part([("q_proj", shares[0][0])], EXCLUDING, members=members)
    answers = pools(3).score([part, part, replace(part, modules=[("q_proj", shares[1][0])])])

    scores = together(answers[1:], [tokens for _, tokens in shares])
    assert relative_error(scores, oracle(case, EXCLUDING)) < 1e-9


def test_without_a_contrast_in_all_ranks_together_there_are_no_scores(pools: Pools) -> None:
    case = random_batch(seed=28)
    case = replace(case, accepted=np.ones(9, dtype=bool))
    scores, answers = scores_of(pools(2), case, in_turn(case, 2))

    assert bool(scores.isnan().all())
    assert [answer.routes for answer in answers] == [{"q_proj": "none"}] * 2


def test_a_contrast_may_need_responses_of_two_ranks(pools: Pools) -> None:
    case = random_batch(seed=29)

    assert not disagreements(pools(2), case, case.accepted.astype(np.int64), FEW, 1e-9)


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
    pools: Pools, powers: tuple[int, ...], options: Options, reg_lambda: float, stored: bool
) -> None:
    case, size = uneven_sizes(powers), len(powers)
    options = {**options, "precision": "fast", "reg_lambda": reg_lambda}
    shares = dealt(case, in_turn(case, size), size)
    parts = [Part([("q_proj", part)], options, torch.float32, stored) for part, _ in shares]
    scores = together(pools(size).score(parts), [tokens for _, tokens in shares])

    by_rank = case.response % size
    assert relative_error(scores, oracle(case, options), by_rank) < 5e-3
    alone = score_batch(
        {"q_proj": factors_of(case)}, responses_of(case), InfluenceConfig(**{**options, "scope": "all_selected"})
    ).scores
    assert relative_error(scores, alone.double().numpy(), by_rank) < 2e-3


def test_a_rank_without_gradients_does_not_set_the_unit_of_tiny_ones(pools: Pools) -> None:
    case = random_batch(seed=41)
    tiny = replace(case, inputs=case.inputs * 2.0**-60, output_grads=case.output_grads * 2.0**-100)
    silent = case.response % 3 == 1
    tiny = replace(tiny, inputs=np.where(silent[:, None], 0.0, tiny.inputs))
    keep = case.response % 3 != 2  # rank 2 has no token, rank 1 no gradient
    tiny = replace(tiny, inputs=tiny.inputs[keep], output_grads=tiny.output_grads[keep], response=tiny.response[keep])
    options = {**EXCLUDING, "precision": "fast"}
    scores, _ = scores_of(pools(3), tiny, in_turn(tiny, 3), **options)

    assert relative_error(scores, oracle(tiny, options)) < 2e-3


def test_gradients_that_are_all_zero_score_zero(pools: Pools) -> None:
    case = replace(random_batch(seed=42), inputs=np.zeros((60, 3)))

    for precision in ("fast", "fp64"):
        for options in FEW:
            scores, _ = scores_of(pools(2), case, in_turn(case, 2), **{**options, "precision": precision})
            assert not scores.any()


# what is reported


@pytest.mark.parametrize("source", ["token", "response"])
def test_all_ranks_report_one_route_residual_and_prediction(pools: Pools, source: str) -> None:
    case = random_batch(seed=43)
    _, answers = scores_of(pools(3), case, np.array([0] * 6 + [1, 2, 2]), **EXCLUDING, hessian_source=source)
    first = answers[0]

    assert all(answer.routes == first.routes for answer in answers)
    assert all(answer.residuals == first.residuals for answer in answers)
    assert all(answer.predicted == first.predicted for answer in answers)
    residual = first.residuals["q_proj"]
    assert residual is not None
    assert residual < 1e-12
    assert first.routes["q_proj"] in (("direct", "pcg") if source == "token" else ("dual",))
    assert len(first.predicted) == (1 if source == "token" else 0)


def test_identity_reports_no_residual(pools: Pools) -> None:
    case = random_batch(seed=44)
    _, answers = scores_of(pools(2), case, in_turn(case, 2), hessian_mode="identity")

    assert [(answer.routes, answer.residuals) for answer in answers] == [({"q_proj": "identity"}, {"q_proj": None})] * 2


# errors


def halves(**options: Any) -> list[Part]:
    case = random_batch(seed=50)
    return parts_of([part for part, _ in dealt(case, in_turn(case, 2), 2)], **options)


def assert_all_raise(pool: RankPool, parts: Sequence[Part], *messages: str) -> None:
    """Every rank raises a ValueError with each message, and all of them are ready for more."""
    answers = pool.score(parts)
    for answer in answers:
        assert answer.error in ("ValueError", "NotPositiveDefinite"), answer
        for message in messages:
            assert message in answer.message.splitlines()[0]
    case = random_batch(seed=51)
    again, _ = scores_of(pool, case, in_turn(case, pool.size), **EXCLUDING)
    assert relative_error(again, oracle(case, EXCLUDING)) < 1e-9


def _broken(parts: list[Part], rank: int, **changes: Any) -> list[Part]:
    """The parts with one rank's case changed."""
    ((module, case),) = parts[rank].modules
    return [
        replace(part, modules=[(module, replace(case, **changes))]) if number == rank else part
        for number, part in enumerate(parts)
    ]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_token_of_an_unknown_response_on_one_rank_is_an_error_on_all(pools: Pools, rank: int) -> None:
    parts = halves()
    response = parts[rank].modules[0][1].response + 3
    answers = pools(2).score(_broken(parts, rank, response=response))

    assert [answer.error for answer in answers] == ["ValueError"] * 2
    assert answers[rank].message.startswith("q_proj: ModuleFactors.response: entries must be rows of Responses")
    assert answers[1 - rank].message.startswith(f"rank {rank}: q_proj: ModuleFactors.response")


def test_ranks_score_on_after_an_error_that_one_of_them_met(pools: Pools) -> None:
    parts = halves()
    broken = _broken(parts, 1, response=parts[1].modules[0][1].response + 3)

    assert_all_raise(pools(2), broken, "ModuleFactors.response: entries must be rows of Responses")


def test_a_module_that_one_rank_cannot_read_is_an_error_on_all(pools: Pools) -> None:
    parts = [_with_second(halves()[0]), replace(_with_second(halves()[1]), breaks=True)]
    answers = pools(2).score(parts)

    assert [answer.error for answer in answers] == ["RuntimeError", "OSError"]
    assert answers[0].message.startswith("rank 1: the disk is gone")


def test_tokens_that_differ_between_modules_of_one_rank_are_an_error_on_all(pools: Pools) -> None:
    one, other = map(_with_second, halves())
    case = one.modules[0][1]
    one = replace(one, modules=[one.modules[0], ("k_proj", replace(case, response=case.response[::-1].copy()))])

    assert_all_raise(pools(2), [one, other], "k_proj: its tokens differ from those of the first module")


def test_modules_in_another_order_are_an_error_on_all(pools: Pools) -> None:
    one, other = map(_with_second, halves())
    parts = [one, replace(other, modules=other.modules[::-1])]

    assert_all_raise(pools(2), parts, "q_proj (3 x 4) on rank 0 stands where rank 1 has k_proj (3 x 4)")


def test_modules_of_other_sides_are_an_error_on_all(pools: Pools) -> None:
    parts = halves()
    parts = _broken(parts, 1, inputs=parts[1].modules[0][1].inputs[:, :2])

    assert_all_raise(pools(2), parts, "q_proj (3 x 4) on rank 0 stands where rank 1 has q_proj (2 x 4)")


def test_another_number_of_modules_is_an_error_on_all(pools: Pools) -> None:
    one, other = halves()

    assert_all_raise(pools(2), [_with_second(one), other], "modules: 2 on rank 0, 1 on rank 1")
    assert_all_raise(pools(2), [one, replace(other, modules=[], like=other.modules[0][1])], "nothing to score")


def test_another_config_is_an_error_on_all(pools: Pools) -> None:
    one, other = halves()
    parts = [one, replace(other, options={**other.options, "hessian_mode": "identity"})]

    assert_all_raise(pools(2), parts, "hessian_mode: 'inverse' on rank 0, 'identity' on rank 1")


@pytest.mark.parametrize("size", [2, 3])
def test_a_damping_that_only_the_leader_finds_too_small_is_an_error_on_all(pools: Pools, size: int) -> None:
    case = CASES["fewer_tokens_than_dim"]()
    shares = dealt(case, in_turn(case, size), size)
    parts = parts_of([part for part, _ in shares], reg_lambda=1e-300, solver="direct")

    assert_all_raise(pools(size), [_with_second(part) for part in parts], "reg_lambda: with 1e-300", "raise it")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "dual"}, "solver: dual with hessian_source=token over 2 ranks"),
        ({"token_unit_norm": True}, "token_unit_norm: with hessian_mode=inverse over 2 ranks"),
        ({"scope": "all_selected"}, "scope: all_selected needs no other rank"),
    ],
)
def test_what_would_need_all_rows_in_one_place_is_refused(pools: Pools, options: Options, message: str) -> None:
    assert_all_raise(pools(2), halves(**options), message)


def test_one_rank_alone_may_ask_for_what_several_may_not(pools: Pools) -> None:
    case = random_batch(seed=52)
    options: list[Options] = [{"solver": "dual"}, {"token_unit_norm": True, "solver": "direct"}]

    assert not disagreements(pools(1), case, in_turn(case, 1), [{**EXCLUDING, **more} for more in options], 1e-9)


def _with_second(part: Part) -> Part:
    """The part with its module once more under another name."""
    return replace(part, modules=[*part.modules, ("k_proj", part.modules[0][1])])
