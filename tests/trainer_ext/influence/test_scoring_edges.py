"""The edges of scoring: nothing to score, nonsense to refuse, memory to account for, modules to add up."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer_ext.influence.against_truth import (
    Options,
    config_of,
    factors_of,
    relative_error,
    responses_of,
    score,
    truth,
)
from tests.trainer_ext.influence.live_bytes import LiveBytes
from tests.truth.cases import fewer_tokens_than_dim, lonely_responses, random_batch
from trainer_ext.influence import PHASES, InfluenceConfig, ModuleFactors, Responses, score_batch, score_module

SOLVERS = ("auto", "direct", "dual", "pcg")
SCOPES = ("per_prompt", "all_selected", "global")
PRECISIONS = ("fp64", "fp32", "fast")
NO_TOKENS = ModuleFactors(torch.empty(0, 3), torch.empty(0, 2), torch.empty(0, dtype=torch.int64))


def _ones(tokens: int) -> ModuleFactors:
    return ModuleFactors(torch.ones(tokens, 3), torch.ones(tokens, 2), torch.zeros(tokens, dtype=torch.int64))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("options", [{"hessian_mode": "identity"}, *({"solver": solver} for solver in SOLVERS)])
def test_no_tokens_give_no_scores(options: dict[str, Any], scope: str, precision: str) -> None:
    config = InfluenceConfig.from_mapping({**options, "scope": scope, "precision": precision})

    result = score_module(NO_TOKENS, responses_of(lonely_responses()), config)

    assert result.scores.shape == (0,)
    assert (result.route, result.residual, result.peak_bytes) == ("none", None, 0)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("mode", ["identity", "inverse"])
def test_no_responses_and_no_tokens_give_no_scores(mode: str, scope: str) -> None:
    nobody = Responses(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.bool), torch.empty(0))

    result = score_module(NO_TOKENS, nobody, InfluenceConfig.from_mapping({"hessian_mode": mode, "scope": scope}))

    assert result.scores.shape == (0,)
    assert result.route == "none"


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("mode", ["identity", "inverse"])
def test_a_single_response_has_no_contrast(mode: str, scope: str) -> None:
    alone = Responses(group=torch.tensor([5]), accepted=torch.tensor([True]), advantage=torch.tensor([1.0]))

    result = score_module(_ones(4), alone, InfluenceConfig.from_mapping({"hessian_mode": mode, "scope": scope}))

    assert result.scores.isnan().all()
    assert (result.route, result.residual) == ("none", None)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("source", ["token", "response"])
def test_a_single_token_is_scored(source: str, solver: str) -> None:
    """Its group has a second response, without tokens."""
    case = random_batch(tokens=9)
    one = replace(
        case, inputs=case.inputs[:1], output_grads=case.output_grads[:1], response=np.array([2]), group=np.zeros(9, int)
    )
    owns: tuple[Options, ...] = (
        {},
        {"exclude_self_response": True},
        {"exclude_self_response": True, "true_loo": True},
    )
    for own in owns:
        options: Options = {"hessian_source": source, "contrastive_agg": "sum", **own}
        expected = truth(one, **options)

        assert relative_error(score(one, solver=solver, **options).scores, expected) < 1e-9
        assert bool(own) == (expected[0] == 0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("source", ["token", "response"])
def test_zero_gradients_score_zero(source: str, solver: str, precision: str) -> None:
    case = random_batch()
    silent = replace(case, output_grads=np.zeros_like(case.output_grads))
    for own in (
        {"exclude_self_response": False},
        {"exclude_self_response": True, "true_loo": True},
        {"exclude_self_response": False, "reg_lambda": 1.0},
    ):
        result = score(silent, hessian_source=source, solver=solver, precision=precision, **own)

        assert (result.scores == 0).all()
        assert result.residual == 0


@pytest.mark.parametrize("mode", ["identity", "inverse"])
def test_zero_gradients_have_no_length_to_divide_by(mode: str) -> None:
    case = random_batch()
    silent = replace(case, inputs=np.zeros_like(case.inputs))

    assert (score(silent, hessian_mode=mode, token_unit_norm=True).scores == 0).all()


@pytest.mark.parametrize("solver", ["direct", "dual"])
def test_damping_too_small_to_solve_with_is_named(solver: str) -> None:
    case = {"direct": fewer_tokens_than_dim(), "dual": random_batch()}[solver]  # rows that leave the system singular

    with pytest.raises(ValueError, match=r"reg_lambda"):
        score(case, reg_lambda=1e-300, solver=solver, scope="all_selected")


@pytest.mark.parametrize("wrong", [-1, 9])
@pytest.mark.parametrize("mode", ["identity", "inverse"])
def test_token_of_an_unknown_response_is_refused(mode: str, wrong: int) -> None:
    factors = factors_of(random_batch())
    response = factors.response.clone()
    response[17] = wrong
    low, high = min(wrong, 0), max(wrong, 8)

    with pytest.raises(ValueError, match=rf"ModuleFactors.response: .* in \[0, 9\), got \[{low}, {high}\]"):
        score_module(
            replace(factors, response=response),
            responses_of(random_batch()),
            InfluenceConfig.from_mapping({"hessian_mode": mode}),
        )


class _CheckedLate(dict[str, ModuleFactors]):
    """Modules as a store on a GPU hands them out: what is not finite is known in the end."""

    def require_finite(self) -> None:
        raise ValueError("k_proj: 1 of 8 values are not finite")


def test_a_value_that_is_not_finite_is_named_as_the_cause_of_what_it_led_to() -> None:
    responses = Responses(torch.tensor([0, 0]), torch.tensor([True, False]), torch.ones(2))
    unsolvable = InfluenceConfig(solver="direct", reg_lambda=1e-300, precision="fp64")
    factors = ModuleFactors(torch.ones(2, 3), torch.ones(2, 2), torch.tensor([0, 1]))

    with pytest.raises(ValueError, match="reg_lambda"):
        score_batch({"q_proj": factors}, responses, unsolvable)
    with pytest.raises(ValueError, match=r"^k_proj: 1 of 8 values are not finite"):
        score_batch(_CheckedLate(q_proj=factors), responses, unsolvable)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": torch.ones(4)}, r"ModuleFactors.inputs: .* shape \(4,\)"),
        ({"inputs": torch.ones(4, 3, dtype=torch.int32)}, r"ModuleFactors.inputs: expected floating point"),
        ({"output_grads": torch.ones(5, 2)}, r"ModuleFactors: one row per token .*'output_grads': 5"),
        ({"inputs": torch.full((4, 3), torch.nan)}, r"ModuleFactors.inputs: 12 of 12 values are not finite"),
        ({"output_grads": torch.full((4, 2), -torch.inf)}, r"ModuleFactors.output_grads: 8 of 8 values"),
        ({"response": torch.zeros(4)}, r"ModuleFactors.response: expected torch.int64"),
        ({"exponent": torch.zeros(4, dtype=torch.int32)}, r"ModuleFactors.exponent: expected torch.int8"),
        ({"exponent": torch.zeros(4, 1, dtype=torch.int8)}, r"ModuleFactors.exponent: .* shape \(4, 1\)"),
        ({"exponent": torch.zeros(3, dtype=torch.int8)}, r"ModuleFactors: one row per token .*'exponent': 3"),
    ],
)
def test_nonsense_never_reaches_a_score(changes: dict[str, Any], message: str) -> None:
    responses = Responses(torch.tensor([0, 0]), torch.tensor([True, False]), torch.ones(2))

    with pytest.raises(ValueError, match=message):
        score_module(replace(_ones(4), **changes), responses, InfluenceConfig())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"true_loo": True}, r"^true_loo: needs exclude_self_response=true and hessian_mode=inverse"),
        ({"true_loo": True, "exclude_self_response": True, "hessian_mode": "identity"}, r"^true_loo: needs"),
        ({"token_unit_norm": True, "solver": "pcg"}, r"^token_unit_norm: .* set solver to auto, direct or dual"),
        ({"residual_tolerance": 1.0}, r"^residual_tolerance: must be below 1"),
        ({"precision": "fp16"}, r"^precision: 'fp16' is not one of auto, fp64, fp32, fast"),
        ({"scope": "rank"}, r"^scope: 'rank' is not one of per_prompt, all_selected, global"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InfluenceConfig(**options)


def test_inputs_stay_as_they_were() -> None:
    case = random_batch()
    factors, responses = factors_of(case), responses_of(case)
    exponent = torch.ones(factors.tokens, dtype=torch.int8)
    given = replace(factors, exponent=exponent)
    for precision in PRECISIONS:
        for solver in SOLVERS:
            score_module(given, responses, config_of(precision=precision, solver=solver))

    fresh = factors_of(case)
    assert torch.equal(given.inputs, fresh.inputs)
    assert torch.equal(given.output_grads, fresh.output_grads)
    assert torch.equal(given.response, fresh.response)
    assert (exponent == 1).all()


def test_the_same_batch_gives_the_same_scores_again() -> None:
    case = random_batch()
    for precision in PRECISIONS:
        for solver in SOLVERS:
            first, second = (score(case, precision=precision, solver=solver).scores for _ in range(2))
            assert torch.equal(first, second)


def test_strided_factors_are_taken() -> None:
    case = random_batch()
    plain = factors_of(case)
    strided = ModuleFactors(
        plain.inputs.T.contiguous().T, plain.output_grads.repeat(1, 2)[:, :4], plain.response.repeat(2)[:60]
    )
    for solver in SOLVERS:
        config = config_of(solver=solver, precision="fp64")
        found, expected = (score_module(f, responses_of(case), config).scores for f in (strided, plain))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("solver", ["direct", "dual"])
@pytest.mark.parametrize("source", ["token", "response"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scope", ["per_prompt", "all_selected"])
def test_peak_bytes_cover_what_is_held_and_not_much_more(scope: str, precision: str, source: str, solver: str) -> None:
    case = random_batch(tokens=600, k_in=16, k_out=20)
    config = InfluenceConfig.from_mapping(
        {
            "solver": solver,
            "hessian_source": source,
            "precision": precision,
            "exclude_self_response": True,
            "scope": scope,
        }
    )
    factors, responses = factors_of(case), responses_of(case)
    score_module(factors, responses, config)  # what is kept from call to call is there
    with LiveBytes([factors.inputs, factors.output_grads, factors.response]) as live:
        result = score_module(factors, responses, config)

    assert live.peak <= result.peak_bytes <= 4 * live.peak


def test_batch_scores_are_the_sum_over_modules() -> None:
    first, second = random_batch(), random_batch(seed=8, k_in=2, k_out=5)
    second = replace(second, response=first.response)
    modules = {"a": factors_of(first), "b": factors_of(second)}
    config = InfluenceConfig(precision="fp64", exclude_self_response=True)

    batch = score_batch(modules, responses_of(first), config)

    singles = [score_module(factors, responses_of(first), config) for factors in modules.values()]
    torch.testing.assert_close(batch.scores, singles[0].scores + singles[1].scores)
    assert batch.routes == {"a": singles[0].route, "b": singles[1].route}
    assert batch.residuals == {"a": singles[0].residual, "b": singles[1].residual}
    assert batch.dims == {"a": (3, 4), "b": (2, 5)}
    assert batch.peak_bytes == max(single.peak_bytes for single in singles)
    assert set(batch.timing) == set(PHASES)
    assert batch.timing["hessian_solve"] > 0


def test_batch_scores_are_nan_where_there_is_no_contrast() -> None:
    case = lonely_responses()

    scores = score_batch({"a": factors_of(case), "b": factors_of(case)}, responses_of(case), InfluenceConfig()).scores

    assert scores.dtype == torch.float32
    assert torch.equal(scores.isnan(), torch.from_numpy(np.isin(case.response, [0, 6, 7])))


class _ReadOnce:
    """What a store hands out: modules that can be gone through a single time."""

    def __init__(self, modules: dict[str, ModuleFactors]) -> None:
        self._modules = modules

    def __len__(self) -> int:
        return len(self._modules)

    def items(self) -> Iterator[tuple[str, ModuleFactors]]:
        modules, self._modules = self._modules, {}
        yield from modules.items()


def test_modules_may_come_one_by_one() -> None:
    case = random_batch()
    modules = {name: factors_of(replace(case, inputs=case.inputs * size)) for name, size in (("a", 1.0), ("b", 2.0))}
    config = config_of(hessian_mode="identity", precision="fp64")

    streamed = score_batch(_ReadOnce(dict(modules)), responses_of(case), config)

    whole = score_batch(modules, responses_of(case), config)
    assert torch.equal(streamed.scores, whole.scores)
    assert list(streamed.dims) == ["a", "b"]


def test_auto_reports_its_choice_with_what_it_predicted_and_what_it_took(caplog: pytest.LogCaptureFixture) -> None:
    case = random_batch()
    modules = {"a": factors_of(case), "b": factors_of(case)}

    with caplog.at_level(logging.INFO):
        chosen = score_batch(modules, responses_of(case), config_of(precision="fp64"))

    assert {record.module: record.route for record in chosen.choices} == chosen.routes
    assert all(record.predicted_seconds > 0 and record.seconds > 0 for record in chosen.choices)
    assert any(f"route {chosen.routes['a']} for 2 modules of D=12" in message for message in caplog.messages)
    assert score_batch(modules, responses_of(case), config_of(solver="direct")).choices == []


def test_batch_names_the_module_that_fails() -> None:
    case = fewer_tokens_than_dim()
    config = InfluenceConfig(reg_lambda=1e-300, solver="direct", scope="all_selected", precision="fp64")

    with pytest.raises(ValueError, match=r"^layers\.0\.q_proj: reg_lambda"):
        score_batch({"layers.0.q_proj": factors_of(case)}, responses_of(case), config)


def test_batch_refuses_modules_that_saw_different_tokens() -> None:
    case = random_batch()
    other = replace(case, response=case.response[::-1].copy())

    with pytest.raises(ValueError, match="b: its tokens differ from those of a"):
        score_batch({"a": factors_of(case), "b": factors_of(other)}, responses_of(case), InfluenceConfig())


def test_batch_without_modules_is_refused() -> None:
    with pytest.raises(ValueError, match="no module was captured"):
        score_batch({}, responses_of(random_batch()), InfluenceConfig())
