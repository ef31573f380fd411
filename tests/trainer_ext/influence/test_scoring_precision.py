"""What a precision costs in accuracy, powers of two beside the factors, and residuals that tell the truth.

Bounds are relative to float64 scores of the unrounded factors, root mean square over tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer_ext.influence.against_truth import (
    Options,
    combinations,
    config_of,
    factors_of,
    name,
    relative_error,
    responses_of,
    rms_error,
    score,
    truth,
)
from tests.truth.brute_force import Floats, outer_products
from tests.truth.cases import CASES, Case, random_batch
from trainer_ext.influence import ModuleFactors, score_module

BOUND = {"fp32": 1e-5, "fast": 2e-3}
HEAVY_TAIL_BOUND = {"fp32": 1e-4, "fast": 2e-2}
"""Where one token holds the Hessian, what the others add to it is near the rounding of that one."""
KINDS: tuple[Options, ...] = (
    {"hessian_mode": "identity"},
    {"hessian_mode": "identity", "exclude_self_response": True, "token_unit_norm": True},
    *(
        {**hessian, **own}
        for hessian in (
            *combinations(hessian_source=("token", "response"), solver=("auto", "direct", "dual")),
            {"hessian_source": "token", "solver": "pcg"},
            # few rows make a condition number at which the default residual says too little of a score
            {"hessian_source": "response", "solver": "pcg", "residual_tolerance": 1e-8},
        )
        for own in ({}, {"exclude_self_response": True}, {"exclude_self_response": True, "true_loo": True})
    ),
    *(
        {"hessian_source": source, "solver": solver, "exclude_self_response": True, "token_unit_norm": True}
        for source in ("token", "response")
        for solver in ("direct", "dual")
    ),
)


def _well_conditioned() -> Case:
    return random_batch(seed=21, tokens=500, k_in=6, k_out=8)


def _rounded(case: Case) -> ModuleFactors:
    """Rows as float16 between 1/2 and 1 at their largest, under one power of two a token."""
    halves, powers = [], []
    for rows in (case.inputs, case.output_grads):
        _, power = np.frexp(np.abs(rows).max(axis=1))
        halves.append(torch.from_numpy(np.ldexp(rows, -power[:, None])).half())
        powers.append(power)
    exponent = torch.from_numpy(np.asarray(sum(powers))).to(torch.int8)
    return ModuleFactors(halves[0], halves[1], torch.from_numpy(case.response), exponent)


def _value(factors: ModuleFactors) -> Floats:
    """g_t in float64."""
    gradients = outer_products(factors.inputs.double().numpy(), factors.output_grads.double().numpy())
    return gradients if factors.exponent is None else np.ldexp(gradients, factors.exponent.numpy()[:, None])


def _worst(case: Case, precision: str, bound: float, scopes: tuple[str, ...] = ("per_prompt", "all_selected")) -> None:
    wrong = []
    for scope in scopes:
        for kind in KINDS:
            config = config_of(precision=precision, scope=scope, **kind)
            result = score_module(factors_of(case, torch.float32), responses_of(case), config)
            error = rms_error(result.scores, truth(case, scope=scope, **kind))
            if not error < bound:
                wrong.append(f"{scope}-{name(kind)}: {error:.1e} by {result.route}, residual {result.residual}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("precision", BOUND)
def test_a_precision_keeps_its_bound(precision: str) -> None:
    _worst(_well_conditioned(), precision, BOUND[precision])


@pytest.mark.parametrize("precision", HEAVY_TAIL_BOUND)
@pytest.mark.parametrize("case", ["extreme_tails", "rank_one", "silent_tokens", "odd_widths"])
def test_a_precision_keeps_its_bound_on_hard_data(case: str, precision: str) -> None:
    _worst(CASES[case](), precision, HEAVY_TAIL_BOUND[precision], scopes=("all_selected",))


@pytest.mark.parametrize("precision", HEAVY_TAIL_BOUND)
@pytest.mark.parametrize("kind", [KINDS[0], *KINDS[2:5]], ids=name)
def test_small_tokens_are_scored_as_precisely_as_large_ones(kind: Options, precision: str) -> None:
    case = CASES["extreme_tails"]()
    length = np.linalg.norm(outer_products(case.inputs, case.output_grads), axis=1)
    expected = truth(case, scope="all_selected", **kind)

    found = score(case, precision=precision, scope="all_selected", **kind).scores

    assert rms_error(found.double() / torch.from_numpy(length), expected / length) < HEAVY_TAIL_BOUND[precision]


@pytest.mark.parametrize("precision", HEAVY_TAIL_BOUND)
@pytest.mark.parametrize("scale", [1e-9, 1e6])
def test_no_precision_depends_on_the_scale_of_the_gradients(scale: float, precision: str) -> None:
    case = _well_conditioned()
    scaled = replace(case, output_grads=case.output_grads * scale)

    _worst(scaled, precision, BOUND[precision], scopes=("all_selected",))


@pytest.mark.parametrize("precision", BOUND)
def test_given_damping_is_taken_as_it_is_in_every_precision(precision: str) -> None:
    """`fast` computes in units of its own, which a given damping must follow."""
    case = _well_conditioned()
    for scale in (1e-6, 1e3):
        scaled = replace(case, output_grads=case.output_grads * scale)
        for kind in KINDS[2:]:
            options: Options = {**kind, "reg_lambda": 500.0 * scale**2, "scope": "all_selected"}

            result = score(scaled, precision=precision, **options)

            assert rms_error(result.scores, truth(scaled, **options)) < BOUND[precision], f"{scale}-{name(kind)}"


@pytest.mark.parametrize("precision", ["fp64", "fp32", "fast"])
def test_rounded_factors_are_scored_for_what_they_are(precision: str) -> None:
    """bfloat16 is what a model may hand over; a float16 product of such rows is exact no longer."""
    case = _well_conditioned()
    rounded = factors_of(case, torch.bfloat16)
    options: Options = {"exclude_self_response": True, "scope": "all_selected"}
    expected = truth(case, _value(rounded), **options)

    result = score_module(rounded, responses_of(case), config_of(precision=precision, **options))

    assert rms_error(result.scores, expected) < {"fp64": 1e-9, **BOUND}[precision]


@pytest.mark.parametrize("case", ["random_batch", "heavy_tails", "extreme_tails", "odd_widths", "silent_tokens"])
def test_fast_takes_rounded_rows_with_exponents_for_what_it_would_round_to_itself(case: str) -> None:
    batch = CASES[case]()
    for kind in KINDS:
        config = config_of(precision="fast", scope="all_selected", **kind)
        inside = score_module(factors_of(batch), responses_of(batch), config)
        stored = score_module(_rounded(batch), responses_of(batch), config)

        # what is left is float32 sums in another order: rounding anew would be 5e-4. Unit rows are rounded after they
        # are made, and stored rows were rounded before
        bound = BOUND["fast"] if kind == KINDS[1] else 3e-5
        assert rms_error(stored.scores, inside.scores.double().numpy()) < bound, name(kind)


def test_fast_scores_differ_from_exact_ones_by_rounding_and_fp32_ones_by_less() -> None:
    case = _well_conditioned()
    exact = truth(case, scope="all_selected")
    errors = {p: rms_error(score(case, precision=p, scope="all_selected").scores, exact) for p in BOUND}

    assert 1e-5 < errors["fast"] < BOUND["fast"]
    assert 0 < errors["fp32"] < errors["fast"]


EXPONENT_KINDS = (
    combinations(hessian_mode=("identity",), token_unit_norm=(False, True))
    + combinations(
        hessian_source=("token", "response"),
        solver=("auto", "direct", "dual", "pcg"),
        exclude_self_response=(True,),
        true_loo=(False, True),
        residual_tolerance=(1e-12,),
    )
    + combinations(
        hessian_source=("token", "response"),
        solver=("direct", "dual"),
        token_unit_norm=(True,),
    )
)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("scope", ["per_prompt", "all_selected"])
def test_exponents_scale_tokens_exactly(scope: str, dtype: torch.dtype) -> None:
    case = random_batch(seed=22)
    exponent = np.random.default_rng(23).integers(-14, 14, size=len(case.response)).astype(np.int8)
    factors = replace(factors_of(case, dtype), exponent=torch.from_numpy(exponent))
    for kind in EXPONENT_KINDS:
        expected = truth(case, _value(factors), scope=scope, **kind)

        result = score_module(factors, responses_of(case), config_of(precision="fp64", scope=scope, **kind))

        assert relative_error(result.scores, expected) < 1e-9, name(kind)


@pytest.mark.parametrize("precision", BOUND)
def test_exponents_count_in_every_precision(precision: str) -> None:
    case = random_batch(seed=22)
    exponent = np.random.default_rng(23).integers(-100, -80, size=len(case.response)).astype(np.int8)
    factors = replace(factors_of(case, torch.float32), exponent=torch.from_numpy(exponent))
    for kind in EXPONENT_KINDS[2:]:  # identity scores would be of the order of 2^-180
        expected = truth(case, np.ldexp(_value(factors), 90), **kind)

        result = score_module(factors, responses_of(case), config_of(precision=precision, **kind))

        assert rms_error(result.scores, expected) < HEAVY_TAIL_BOUND[precision], name(kind)


def test_zero_exponents_change_nothing() -> None:
    case = random_batch()
    factors = factors_of(case)
    with_zeros = replace(factors, exponent=torch.zeros(factors.tokens, dtype=torch.int8))
    for precision in ("fp64", "fp32", "fast"):
        config = config_of(precision=precision, exclude_self_response=True)

        plain, same = (score_module(f, responses_of(case), config).scores for f in (factors, with_zeros))

        torch.testing.assert_close(same, plain, rtol=1e-6, atol=1e-7)


def _residual(case: Case, scores: Floats, options: Options) -> float:
    """max |W H - d| / |d| by the definition, with each W read back from the scores of its own tokens.

    score_t = g_t . W_r(t) has one solution where a response has more tokens than D.
    """
    gradients = outer_products(case.inputs, case.output_grads)
    summed = np.stack([gradients[case.response == r].sum(axis=0) for r in range(len(case.group))])
    rows, owner = (gradients, case.response) if options["hessian_source"] == "token" else (summed, np.arange(9))
    lam = 0.1 * np.square(rows).sum() / rows.shape[1]
    sign = np.where(case.accepted, 1.0, -1.0)
    worst = 0.0
    for r in range(len(case.group)):
        mine, others = case.response == r, np.arange(len(case.group)) != r
        kept = rows[owner != r] if options.get("true_loo") else rows
        direction = (sign[others] if options["exclude_self_response"] else sign) @ (
            summed[others] if options["exclude_self_response"] else summed
        )
        solution = np.linalg.lstsq(gradients[mine], scores[mine], rcond=None)[0]
        missing = kept.T @ (kept @ solution) + lam * solution - direction
        worst = max(worst, float(np.linalg.norm(missing) / np.linalg.norm(direction)))
    return worst


OWN: tuple[dict[str, Any], ...] = (
    {"exclude_self_response": False},
    {"exclude_self_response": True},
    {"exclude_self_response": True, "true_loo": True},
)


@pytest.mark.parametrize("own", OWN, ids=name)
@pytest.mark.parametrize("source", ["token", "response"])
@pytest.mark.parametrize("solver", ["pcg", "direct", "dual"])
def test_the_residual_is_what_was_asked_for_and_what_is_true(solver: str, source: str, own: dict[str, Any]) -> None:
    case = random_batch(seed=24, tokens=400)
    for tolerance in (1e-4, 1e-8, 1e-12):
        options = {"hessian_source": source, "contrastive_agg": "sum", "scope": "all_selected", **own}

        result = score(case, solver=solver, residual_tolerance=tolerance, **options)

        assert result.residual is not None
        assert result.residual <= tolerance
        assert _residual(case, result.scores.numpy(), options) <= 1.01 * result.residual + 1e-12


@pytest.mark.parametrize(("precision", "tolerance"), [("fp64", 1e-10), ("fp32", 1e-6), ("fast", 1e-3)])
@pytest.mark.parametrize("case", ["heavy_tails", "extreme_tails", "odd_widths", "lonely_responses", "rank_one"])
def test_every_precision_ends_below_its_residual(case: str, precision: str, tolerance: float) -> None:
    batch = CASES[case]()
    for options in combinations(
        hessian_source=("token", "response"), solver=("auto", "direct", "dual", "pcg"), exclude_self_response=(True,)
    ):
        result = score(batch, precision=precision, **options)

        assert result.residual is not None
        assert 0 <= result.residual <= tolerance, name(options)


def _little_damping(case: Case, relative: float) -> float:
    return relative * float((np.square(case.inputs).sum(axis=1) * np.square(case.output_grads).sum(axis=1)).sum())


@pytest.mark.parametrize("solver", ["auto", "direct", "pcg"])
def test_little_damping_costs_no_precision_where_tokens_are_many(solver: str) -> None:
    """More tokens than D: the Hessian needs no damping to be regular. Their Gram matrix does, and `dual` may lose."""
    case = random_batch(seed=26)
    for relative in (1e-8, 1e-12):
        for own in OWN:
            options = {"reg_lambda": _little_damping(case, relative), "scope": "all_selected", **own}

            result = score(case, solver=solver, **options)

            assert result.residual is not None
            assert result.residual <= 1e-10, f"{relative}-{name(own)} by {result.route}"
            assert relative_error(result.scores, truth(case, **options)) < 1e-9, f"{relative}-{name(own)}"


@pytest.mark.parametrize(
    ("solver", "tolerance", "relative"),
    [("pcg", 1e-2, 0.01), ("pcg", 1e-5, 0.01), ("dual", 0.5, 1e-8), ("dual", 0.5, 1e-12)],
)
def test_a_score_is_off_by_no_more_than_its_residual_allows(solver: str, tolerance: float, relative: float) -> None:
    """By at most |d| |H^-1 g_t| times the residual."""
    case = random_batch(seed=25)
    damping = _little_damping(case, relative)
    gradients = outer_products(case.inputs, case.output_grads)
    hessian = gradients.T @ gradients + damping * np.eye(gradients.shape[1])
    sign = np.where(case.accepted[case.response], 1.0, -1.0)
    reach = np.linalg.norm(np.linalg.solve(hessian, gradients.T), axis=0) * np.linalg.norm(sign @ gradients)
    options: Options = {"contrastive_agg": "sum", "scope": "all_selected", "reg_lambda": damping}

    result = score(case, solver=solver, residual_tolerance=tolerance, **options)

    assert result.residual is not None
    assert 1e-14 < result.residual < 1e-1, "nothing to tell from rounding"
    assert (np.abs(result.scores.numpy() - truth(case, **options)) <= reach * result.residual + 1e-13).all()
