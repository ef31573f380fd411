"""What goes wrong on one rank goes wrong on all of them, at once, and leaves them ready for the next batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.trainer_ext.influence.against_truth import Options, name, relative_error
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
from tests.truth.brute_force import Integers
from tests.truth.cases import CASES, Case, random_batch


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
    again, _ = scores_of(pool, len(parts), case, in_turn(case, len(parts)), **EXCLUDING)
    assert relative_error(again, oracle(case, EXCLUDING)) < 1e-9


def _broken(parts: list[Part], rank: int, **changes: Any) -> list[Part]:
    """The parts with one rank's case changed."""
    ((module, case),) = parts[rank].modules
    return [
        replace(part, modules=[(module, replace(case, **changes))]) if number == rank else part
        for number, part in enumerate(parts)
    ]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_token_of_an_unknown_response_on_one_rank_is_an_error_on_all(pool: RankPool, rank: int) -> None:
    parts = halves()
    response = parts[rank].modules[0][1].response + 3
    answers = pool.score(_broken(parts, rank, response=response))

    assert [answer.error for answer in answers] == ["ValueError"] * 2
    assert answers[rank].message.startswith("q_proj: ModuleFactors.response: entries must be rows of Responses")
    assert answers[1 - rank].message.startswith(f"rank {rank}: q_proj: ModuleFactors.response")


def test_ranks_score_on_after_an_error_that_one_of_them_met(pool: RankPool) -> None:
    parts = halves()
    broken = _broken(parts, 1, response=parts[1].modules[0][1].response + 3)

    assert_all_raise(pool, broken, "ModuleFactors.response: entries must be rows of Responses")


def test_a_module_that_one_rank_cannot_read_is_an_error_on_all(pool: RankPool) -> None:
    parts = [_with_second(halves()[0]), replace(_with_second(halves()[1]), breaks=True)]
    answers = pool.score(parts)

    assert [answer.error for answer in answers] == ["RuntimeError", "OSError"]
    assert answers[0].message.startswith("rank 1: the disk is gone")


@pytest.mark.parametrize("modules", [1, 2], ids=["a last wave of one", "a last wave of as many as there are ranks"])
def test_what_one_rank_finds_out_after_its_last_module_is_an_error_on_all(pool: RankPool, modules: int) -> None:
    parts = [_with_second(part) if modules == 2 else part for part in halves()]
    parts[1] = replace(parts[1], ends_with="k_proj: a value is not finite")

    assert_all_raise(pool, parts, "k_proj: a value is not finite")


def test_a_value_that_is_not_finite_is_named_as_the_cause_of_what_it_led_to(pool: RankPool) -> None:
    case = CASES["fewer_tokens_than_dim"]()
    parts = parts_of([part for part, _ in dealt(case, in_turn(case, 2), 2)], reg_lambda=1e-300, solver="direct")
    parts = [_with_second(part) for part in parts]
    parts[1] = replace(parts[1], ends_with="q_proj: a value is not finite")

    answers = pool.score(parts)

    assert "reg_lambda: with 1e-300" in answers[0].message.splitlines()[0]
    assert answers[1].message.startswith("q_proj: a value is not finite")


@pytest.mark.parametrize("options", FEW, ids=name)
@pytest.mark.parametrize("rank", [0, 1])  # the one that leads the module, and another
def test_whatever_step_fails_on_one_rank_fails_on_all(pool: RankPool, rank: int, options: Options) -> None:
    case = random_batch(seed=53)
    parts = [
        _with_second(part)
        for part in parts_of([part for part, _ in dealt(case, in_turn(case, 2), 2)], **{**options, "precision": "fp32"})
    ]
    failures = 0
    while True:
        wearing = [replace(p, stagings=failures) if number == rank else p for number, p in enumerate(parts)]
        answers = pool.score(wearing)
        if not answers[rank].error:
            break
        assert answers[rank].message.startswith("the disk is gone")
        assert answers[1 - rank].message.startswith(f"rank {rank}: the disk is gone")
        failures += 1

    assert failures >= 3  # units, sums, scores
    assert relative_error(together(answers, _tokens(case)), 2 * oracle(case, options)) < 1e-5


def test_devices_of_two_kinds_are_an_error_on_all(pool: RankPool) -> None:
    one, other = halves()

    assert_all_raise(pool, [one, replace(other, device="meta")], "device: cpu on rank 0 and meta on rank 1")


def test_tokens_that_differ_between_modules_of_one_rank_are_an_error_on_all(pool: RankPool) -> None:
    one, other = map(_with_second, halves())
    case = one.modules[0][1]
    one = replace(one, modules=[one.modules[0], ("k_proj", replace(case, response=case.response[::-1].copy()))])

    assert_all_raise(pool, [one, other], "k_proj: its tokens differ from those of the first module")


def test_modules_in_another_order_are_an_error_on_all(pool: RankPool) -> None:
    one, other = map(_with_second, halves())
    parts = [one, replace(other, modules=other.modules[::-1])]

    assert_all_raise(pool, parts, "q_proj (3 x 4) on rank 0 stands where rank 1 has k_proj (3 x 4)")


def test_modules_of_other_sides_are_an_error_on_all(pool: RankPool) -> None:
    parts = halves()
    parts = _broken(parts, 1, inputs=parts[1].modules[0][1].inputs[:, :2])

    assert_all_raise(pool, parts, "q_proj (3 x 4) on rank 0 stands where rank 1 has q_proj (2 x 4)")


def test_another_number_of_modules_is_an_error_on_all(pool: RankPool) -> None:
    one, other = halves()

    assert_all_raise(pool, [_with_second(one), other], "modules: 2 on rank 0, 1 on rank 1")
    assert_all_raise(pool, [one, replace(other, modules=[], like=other.modules[0][1])], "nothing to score")


def test_another_config_is_an_error_on_all(pool: RankPool) -> None:
    one, other = halves()
    parts = [one, replace(other, options={**other.options, "hessian_mode": "identity"})]

    assert_all_raise(pool, parts, "hessian_mode: 'inverse' on rank 0, 'identity' on rank 1")


@pytest.mark.parametrize("size", [2, 3])
def test_a_damping_that_only_the_leader_finds_too_small_is_an_error_on_all(pool: RankPool, size: int) -> None:
    case = CASES["fewer_tokens_than_dim"]()
    shares = dealt(case, in_turn(case, size), size)
    parts = parts_of([part for part, _ in shares], reg_lambda=1e-300, solver="direct")

    assert_all_raise(pool, [_with_second(part) for part in parts], "reg_lambda: with 1e-300", "raise it")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "dual"}, "solver: dual with hessian_source=token over 2 ranks"),
        ({"token_unit_norm": True}, "token_unit_norm: with hessian_mode=inverse over 2 ranks"),
        ({"scope": "all_selected"}, "scope: all_selected needs no other rank"),
    ],
)
def test_what_would_need_all_rows_in_one_place_is_refused(pool: RankPool, options: Options, message: str) -> None:
    assert_all_raise(pool, halves(**options), message)


def test_one_rank_alone_may_ask_for_what_several_may_not(pool: RankPool) -> None:
    case = random_batch(seed=52)
    options: list[Options] = [{"solver": "dual"}, {"token_unit_norm": True, "solver": "direct"}]

    assert not disagreements(pool, 1, case, in_turn(case, 1), [{**EXCLUDING, **more} for more in options], 1e-9)


def _tokens(case: Case) -> list[Integers]:
    return [tokens for _, tokens in dealt(case, in_turn(case, 2), 2)]


def _with_second(part: Part) -> Part:
    """The part with its module once more under another name."""
    return replace(part, modules=[*part.modules, ("k_proj", part.modules[0][1])])
