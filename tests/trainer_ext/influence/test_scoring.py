"""Scores against the definition: every combination of options on every case, and examples worked by hand.

One test goes through many combinations: thousands of tests of a millisecond each would spend their time in pytest.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from tests.trainer_ext.influence.against_truth import Options, combinations, disagreements, name, score, truth
from tests.truth.cases import CASES, Case, random_batch
from trainer_ext.influence import PHASES

SCOPES = ("per_prompt", "all_selected")
AGGREGATIONS = ("sum", "mean", "advantage")
SOURCES = ("token", "response")
SOLVERS: tuple[Options, ...] = (
    {"solver": "auto"},
    {"solver": "direct"},
    {"solver": "dual"},
    # a score's error is the residual times the condition number, up to 10 D here
    {"solver": "pcg", "residual_tolerance": 1e-12},
)
CONTRASTS: list[Options] = combinations(
    scope=SCOPES, contrastive_agg=AGGREGATIONS, exclude_self_response=(False, True), leave_one_out=("auto",)
) + combinations(
    # leave_one_out matters only here (`test_leave_one_out_matters_only_to_a_mean_without_the_own_response`)
    scope=SCOPES,
    contrastive_agg=("mean",),
    exclude_self_response=(True,),
    leave_one_out=("keep", "renorm"),
)
GLOBAL = combinations(scope=("global",), contrastive_agg=AGGREGATIONS, exclude_self_response=(False, True))


def _assert_equal_to_the_definition(case: str, every: Iterable[Options], tolerance: float = 1e-9) -> None:
    asked = list(every)
    wrong = list(disagreements(CASES[case](), asked, tolerance))

    assert asked
    assert not wrong, f"{len(wrong)} of {len(asked)} combinations:\n" + "\n".join(wrong[:20])


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("case", CASES)
def test_inverse_scores_equal_the_definition(case: str, source: str) -> None:
    solved = [contrast | solver for contrast in CONTRASTS for solver in SOLVERS] + GLOBAL

    _assert_equal_to_the_definition(
        case, ({"hessian_mode": "inverse", "hessian_source": source} | options for options in solved)
    )


@pytest.mark.parametrize("case", CASES)
def test_identity_scores_equal_the_definition(case: str) -> None:
    sources = combinations(hessian_mode=("identity",), hessian_source=SOURCES)

    _assert_equal_to_the_definition(
        case, (source | contrast for source in sources for contrast in CONTRASTS + GLOBAL), tolerance=1e-12
    )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("case", CASES)
def test_scores_without_the_own_tokens_in_the_hessian_equal_the_definition(case: str, source: str) -> None:
    contrasts = combinations(
        true_loo=(True,), exclude_self_response=(True,), scope=SCOPES, contrastive_agg=AGGREGATIONS
    )
    solved = [contrast | solver for contrast in contrasts for solver in SOLVERS]
    others = [
        {**contrasts[1], "leave_one_out": "keep"},
        *({**contrast, "scope": "global"} for contrast in contrasts[3:]),
    ]

    _assert_equal_to_the_definition(case, ({"hessian_source": source} | options for options in solved + others))


@pytest.mark.parametrize("case", CASES)
def test_unit_length_scores_of_the_identity_equal_the_definition(case: str) -> None:
    sources = combinations(hessian_mode=("identity",), hessian_source=SOURCES, token_unit_norm=(True,))

    _assert_equal_to_the_definition(
        case, (source | contrast for source in sources for contrast in CONTRASTS + GLOBAL), tolerance=1e-12
    )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("case", CASES)
def test_unit_length_scores_of_the_inverse_equal_the_definition(case: str, source: str) -> None:
    own_rows: tuple[Options, ...] = (
        {"exclude_self_response": False, "contrastive_agg": "sum"},
        {"exclude_self_response": True, "contrastive_agg": "mean"},
        {"exclude_self_response": True, "contrastive_agg": "advantage", "true_loo": True},
    )
    solved = [*combinations(scope=SCOPES, solver=("auto", "direct", "dual")), {"scope": "global"}]

    _assert_equal_to_the_definition(
        case,
        ({"hessian_source": source, "token_unit_norm": True} | own | options for own in own_rows for options in solved),
    )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("case", ["random_batch", "extreme_tails", "fewer_tokens_than_dim"])
def test_given_damping_is_taken_as_it_is(case: str, source: str) -> None:
    batch = CASES[case]()
    trace = float((np.square(batch.inputs).sum(axis=1) * np.square(batch.output_grads).sum(axis=1)).sum())

    _assert_equal_to_the_definition(
        case,
        (
            {"hessian_source": source, "reg_lambda": relative * trace, "scope": scope} | own | solver
            for relative in (1e-3, 1.0, 1e3)
            for scope in SCOPES
            for own in ({"exclude_self_response": False}, {"exclude_self_response": True, "true_loo": True})
            for solver in SOLVERS
        ),
    )


def test_leave_one_out_matters_only_to_a_mean_without_the_own_response() -> None:
    batch = random_batch()
    for mode in ("identity", "inverse"):
        for options in combinations(contrastive_agg=AGGREGATIONS, exclude_self_response=(False, True)):
            keep, renorm, auto = (
                score(batch, hessian_mode=mode, leave_one_out=leave, **options).scores
                for leave in ("keep", "renorm", "auto")
            )
            matters = options["contrastive_agg"] == "mean" and options["exclude_self_response"]

            assert torch.equal(keep, renorm) != matters, name(options)
            assert torch.equal(auto, renorm if mode == "inverse" else keep), name(options)


# One prompt, D = 1: an accepted response of tokens with gradients 1 and 2, a rejected one of a token with gradient 4.
# d = 3 - 4, or -4 and 3 where the own response is left out; by token the Hessian is 1 + 4 + 16 + lambda, by response
# 9 + 16 + lambda.
OWN_OUT = {"exclude_self_response": True, "contrastive_agg": "sum", "reg_lambda": 1.0}
WORKED: list[tuple[Options, list[float]]] = [
    ({"hessian_mode": "identity", "contrastive_agg": "sum"}, [-1, -2, -4]),
    ({"hessian_mode": "identity", "contrastive_agg": "advantage"}, [-1.0, -2.0, -4.0]),  # 1 * 3 - 1 * 4
    ({"hessian_mode": "identity", "contrastive_agg": "sum", "exclude_self_response": True}, [-4, -8, 12]),
    ({"hessian_mode": "identity", "contrastive_agg": "sum", "token_unit_norm": True}, [1, 1, 1]),
    (
        {"hessian_mode": "identity", "contrastive_agg": "sum", "token_unit_norm": True, "exclude_self_response": True},
        [-1, -1, 2],
    ),
    ({"contrastive_agg": "sum", "reg_lambda": 1.0}, [-1 / 22, -2 / 22, -4 / 22]),
    ({"contrastive_agg": "sum"}, [-1 / 23.1, -2 / 23.1, -4 / 23.1]),  # lambda = 0.1 * 21 / 1
    (OWN_OUT, [-4 / 22, -8 / 22, 12 / 22]),
    ({**OWN_OUT, "hessian_source": "response"}, [-4 / 26, -8 / 26, 12 / 26]),
    ({**OWN_OUT, "true_loo": True}, [-4 / 17, -8 / 17, 12 / 6]),
    ({**OWN_OUT, "true_loo": True, "reg_lambda": -1.0}, [-4 / 18.1, -8 / 18.1, 12 / 7.1]),
    ({**OWN_OUT, "true_loo": True, "hessian_source": "response"}, [-4 / 17, -8 / 17, 12 / 10]),
    ({"contrastive_agg": "sum", "reg_lambda": 1.0, "token_unit_norm": True}, [-(22**-0.5)] * 3),
    ({**OWN_OUT, "true_loo": True, "token_unit_norm": True}, [-4 / 17 * 22**0.5, -4 / 17 * 22**0.5, 3 / 6 * 22**0.5]),
]


@pytest.mark.parametrize(("options", "expected"), WORKED, ids=lambda value: name(value) if type(value) is dict else "")
def test_scores_worked_by_hand(options: Options, expected: list[float]) -> None:
    case = Case(
        inputs=np.array([[1.0], [-1.0], [2.0]]),
        output_grads=np.array([[1.0], [-2.0], [2.0]]),
        response=np.array([0, 0, 1]),
        group=np.array([3, 3]),
        accepted=np.array([True, False]),
        advantage=np.array([1.0, -1.0]),
    )

    assert truth(case, **options).tolist() == pytest.approx(expected, rel=1e-12)
    assert score(case, **options).scores.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_route_asked_for_is_the_route_taken() -> None:
    batch = random_batch()

    for solver in ("direct", "dual", "pcg"):
        for scope in (*SCOPES, "global"):
            assert score(batch, solver=solver, scope=scope).route == solver
    assert score(batch, hessian_mode="identity").route == "identity"
    assert score(batch, hessian_mode="identity").residual is None


def test_auto_takes_one_of_the_routes_for_each_group() -> None:
    for case in CASES.values():
        result = score(case())

        assert set(result.route.split("+")) <= {"direct", "dual", "pcg", "none"}
        assert (result.route == "none") == bool(result.scores.isnan().all())


@pytest.mark.parametrize("mode", ["identity", "inverse"])
def test_every_phase_is_timed(mode: str) -> None:
    timing = score(random_batch(), hessian_mode=mode).timing

    assert tuple(timing) == PHASES
    assert all(seconds >= 0 for seconds in timing.values())
    assert timing["token_scoring"] > 0


def test_scores_come_in_the_type_of_the_precision() -> None:
    batch = random_batch()
    types = {p: score(batch, precision=p).scores.dtype for p in ("fp64", "fp32", "fast", "auto")}

    assert types == {"fp64": torch.float64, "fp32": torch.float32, "fast": torch.float32, "auto": torch.float32}
