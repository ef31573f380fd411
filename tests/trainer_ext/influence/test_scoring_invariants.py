"""What must hold of any right score, whatever the numbers: sums, symmetries, scales. No oracle but algebra."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainer_ext.influence.against_truth import Options, combinations, name, score
from tests.truth.brute_force import Floats, outer_products
from tests.truth.cases import Case, one_sided_prompts, random_batch

OWN: tuple[Options, ...] = (
    {"exclude_self_response": False},
    {"exclude_self_response": True},
    {"exclude_self_response": True, "true_loo": True},
)
EXACT = {"residual_tolerance": 1e-12}
INVERSE: list[Options] = [
    {"hessian_source": source, "solver": solver, **EXACT, **own}
    for source in ("token", "response")
    for solver in ("direct", "dual", "pcg")
    for own in OWN
]
UNIT: list[Options] = [
    {"hessian_source": source, "solver": solver, "token_unit_norm": True, **own}
    for source in ("token", "response")
    for solver in ("direct", "dual")
    for own in OWN
]
IDENTITY: list[Options] = [
    {"hessian_mode": "identity", **own, **unit} for own in OWN[:2] for unit in ({}, {"token_unit_norm": True})
]
ALL = INVERSE + UNIT + IDENTITY


def _scores(case: Case, options: Options) -> Floats:
    found: Floats = score(case, **options).scores.numpy()
    return found


def _assert_close(found: Floats, expected: Floats, options: Options, rtol: float = 1e-9) -> None:
    size = np.nanmax(np.abs(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * size, err_msg=name(options))


def _own_influence(case: Case, rows: list[int], r: int, options: Options) -> float:
    """d_r^T H^-1 g_r of response r in the group of the responses `rows`; mean counts the rest of a class anew."""
    gradients = outer_products(case.inputs, case.output_grads)
    summed = {q: gradients[case.response == q].sum(axis=0) for q in rows}
    counted = [q for q in rows if q != r] if options["exclude_self_response"] else rows
    sides = [[summed[q] for q in counted if case.accepted[q] == side] for side in (True, False)]
    if options["contrastive_agg"] == "advantage":
        direction = np.sum([case.advantage[q] * summed[q] for q in counted], axis=0)
    else:
        merge = np.sum if options["contrastive_agg"] == "sum" else np.mean
        accepted, rejected = (merge(side, axis=0) if side else np.zeros_like(summed[r]) for side in sides)
        direction = accepted - rejected
    if options["hessian_source"] == "token":
        blocks = {q: gradients[case.response == q] for q in rows}
    else:
        blocks = {q: summed[q][None] for q in rows}
    every = np.concatenate(list(blocks.values()))
    kept = np.concatenate([block for q, block in blocks.items() if not (options.get("true_loo") and q == r)])
    damping = 0.1 * np.square(every).sum() / every.shape[1]
    return float(direction @ np.linalg.solve(kept.T @ kept + damping * np.eye(every.shape[1]), summed[r]))


@pytest.mark.parametrize("agg", ["sum", "mean", "advantage"])
@pytest.mark.parametrize("scope", ["per_prompt", "all_selected"])
def test_scores_of_a_response_sum_to_its_own_influence(scope: str, agg: str) -> None:
    case = random_batch(seed=31, tokens=200, k_in=5, k_out=3)
    for kind in INVERSE:
        options = {"contrastive_agg": agg, "scope": scope, **kind}
        scores = _scores(case, options)
        for r, label in enumerate(case.group):
            rows = [q for q in range(9) if scope == "all_selected" or case.group[q] == label]
            total = scores[case.response == r].sum()
            assert total == pytest.approx(_own_influence(case, rows, r, options), rel=1e-8), name(options)


def test_identity_scores_of_a_response_sum_to_the_product_with_its_gradient() -> None:
    case = random_batch(seed=32)
    scores = _scores(case, {"hessian_mode": "identity", "contrastive_agg": "sum", "scope": "all_selected"})
    gradients = outer_products(case.inputs, case.output_grads)
    direction = np.where(case.accepted[case.response], 1.0, -1.0) @ gradients

    for r in range(9):
        mine = case.response == r
        assert scores[mine].sum() == pytest.approx(direction @ gradients[mine].sum(axis=0), rel=1e-12)


@pytest.mark.parametrize("scope", ["per_prompt", "all_selected"])
def test_the_order_of_tokens_and_of_responses_and_the_labels_of_prompts_do_not_matter(scope: str) -> None:
    case = random_batch(seed=33)
    rng = np.random.default_rng(0)
    tokens, rows = rng.permutation(len(case.response)), rng.permutation(9)
    place = np.argsort(rows)  # where each response went
    shuffled = Case(
        inputs=case.inputs[tokens],
        output_grads=case.output_grads[tokens],
        response=place[case.response[tokens]],
        group=-3 * case.group[rows],
        accepted=case.accepted[rows],
        advantage=case.advantage[rows],
    )
    for options in ALL:
        asked = {"scope": scope, **options}
        _assert_close(_scores(shuffled, asked), _scores(case, asked)[tokens], asked)


def test_a_rotation_of_inputs_or_output_gradients_changes_nothing() -> None:
    case, rng = random_batch(seed=34, k_in=6, k_out=3), np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.normal(size=(k, k)))[0] for k in (6, 3))
    rotated = replace(case, inputs=case.inputs @ left, output_grads=case.output_grads @ right)
    for options in ALL:
        _assert_close(_scores(rotated, options), _scores(case, options), options)


def test_inputs_and_output_gradients_are_alike() -> None:
    case = random_batch(seed=35, k_in=7, k_out=2)
    swapped = replace(case, inputs=case.output_grads, output_grads=case.inputs)
    for options in ALL:
        _assert_close(_scores(swapped, options), _scores(case, options), options)


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**15, 1e-7, 300.0])
def test_inverse_scores_do_not_depend_on_the_scale_of_gradients(scale: float) -> None:
    case = random_batch(seed=36)
    scaled = replace(case, output_grads=case.output_grads * scale)
    for options in [*INVERSE, *UNIT, *(o for o in IDENTITY if "token_unit_norm" in o)]:
        _assert_close(_scores(scaled, options), _scores(case, options), options)


@pytest.mark.parametrize("scale", [2.0**-20, 300.0])
def test_identity_scores_grow_with_the_square_of_gradients(scale: float) -> None:
    case = random_batch(seed=37)
    scaled = replace(case, inputs=case.inputs * scale)
    for options in IDENTITY:
        if "token_unit_norm" not in options:
            _assert_close(_scores(scaled, options), scale**2 * _scores(case, options), options, rtol=1e-12)


def test_given_damping_scales_with_the_square_of_gradients() -> None:
    case = random_batch(seed=38)
    scaled = replace(case, inputs=case.inputs * 10.0)
    for options in INVERSE:
        plain = _scores(case, {**options, "reg_lambda": 2.0})
        _assert_close(_scores(scaled, {**options, "reg_lambda": 200.0}), plain, options)


@pytest.mark.parametrize("agg", ["sum", "mean"])
def test_exchanging_accepted_and_rejected_turns_every_sign(agg: str) -> None:
    case = random_batch(seed=39)
    exchanged = replace(case, accepted=~case.accepted)
    for kind in ALL:
        options = {"contrastive_agg": agg, **kind}
        _assert_close(_scores(exchanged, options), -_scores(case, options), options)


def test_scores_are_linear_in_the_advantages_whoever_is_accepted() -> None:
    case = random_batch(seed=40)
    changed = replace(case, advantage=-2.5 * case.advantage, accepted=~case.accepted)
    for kind in ALL:
        options = {"contrastive_agg": "advantage", **kind}
        _assert_close(_scores(changed, options), -2.5 * _scores(case, options), options)


def test_a_prompt_is_scored_as_if_it_were_alone() -> None:
    case = random_batch(seed=41)
    for label in (3, 7, 100):
        mine = case.group[case.response] == label
        rows = np.flatnonzero(case.group == label)
        alone = Case(
            inputs=case.inputs[mine],
            output_grads=case.output_grads[mine],
            response=np.searchsorted(rows, case.response[mine]),
            group=case.group[rows],
            accepted=case.accepted[rows],
            advantage=case.advantage[rows],
        )
        for options in ALL:
            _assert_close(_scores(alone, options), _scores(case, options)[mine], options)


def test_a_token_without_gradient_scores_zero_and_changes_no_other() -> None:
    case = random_batch(seed=42)
    longer = replace(
        case,
        inputs=np.concatenate([case.inputs, np.ones((2, 3))]),
        output_grads=np.concatenate([case.output_grads, np.zeros((2, 4))]),
        response=np.concatenate([case.response, [0, 5]]),
    )
    for options in ALL:
        scores = _scores(longer, options)
        assert (scores[-2:] == 0).all(), name(options)
        _assert_close(scores[:-2], _scores(case, options), options)


def test_halves_of_a_token_share_its_score_where_only_responses_count() -> None:
    case = random_batch(seed=43)
    halved = replace(
        case,
        inputs=np.repeat(case.inputs, 2, axis=0),
        output_grads=np.repeat(case.output_grads, 2, axis=0) / 2,
        response=np.repeat(case.response, 2),
    )
    for options in [*(o for o in INVERSE if o["hessian_source"] == "response"), *IDENTITY[::2]]:
        _assert_close(_scores(halved, options).reshape(-1, 2).sum(axis=1), _scores(case, options), options)


def test_parts_of_a_module_add_up_without_a_hessian() -> None:
    case = random_batch(seed=44, k_in=5, k_out=4)
    for options in IDENTITY[::2]:
        parts = [_scores(replace(case, inputs=case.inputs[:, cut]), options) for cut in (slice(2), slice(2, 5))]
        _assert_close(parts[0] + parts[1], _scores(case, options), options, rtol=1e-12)


def test_tokens_are_nan_exactly_where_their_prompt_has_no_contrast() -> None:
    case = one_sided_prompts()
    labels = case.group[case.response]
    for options in ALL:
        assert np.array_equal(np.isnan(_scores(case, options)), labels != 100), name(options)
        assert not np.isnan(_scores(case, {**options, "scope": "all_selected"})).any(), name(options)


def test_leaving_the_own_tokens_out_of_the_hessian_matters_more_the_fewer_there_are() -> None:
    """A response's own rows are a larger share of a prompt's Hessian than of everybody's."""
    case = random_batch(seed=45, tokens=300)

    def change(scope: str) -> float:
        options: dict[str, Any] = {"exclude_self_response": True, "scope": scope}
        with_own, without = (score(case, true_loo=loo, **options).scores for loo in (False, True))
        return float((without - with_own).norm() / with_own.norm())

    assert change("per_prompt") > 2 * change("all_selected") > 0.01


def test_every_choice_makes_a_difference() -> None:
    """The options of the other tests would prove little if they all gave the same score."""
    case = random_batch(seed=46)
    seen = combinations(
        hessian_source=("token", "response"),
        scope=("per_prompt", "all_selected"),
        contrastive_agg=("sum", "mean", "advantage"),
        token_unit_norm=(False, True),
    )
    every = [torch.as_tensor(_scores(case, {**options, **own})) for options in seen for own in OWN]

    assert all(not torch.allclose(a, b, rtol=1e-3) for i, a in enumerate(every) for b in every[:i])
