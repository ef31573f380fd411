"""Scores against the brute-force definition in every combination of options, and what must hold at the edges."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.truth.brute_force import outer_products, token_influence
from tests.truth.cases import CASES, Case, fewer_tokens_than_dim, lonely_responses, random_batch
from trainer_ext.influence import (
    PHASES,
    InfluenceConfig,
    ModuleFactors,
    ModuleResult,
    Responses,
    score_batch,
    score_module,
)
from trainer_ext.influence.contrast import contrast_matrix, response_weights

SHARED = {
    "scope": ("per_prompt", "all_selected"),
    "contrastive_agg": ("sum", "mean", "advantage"),
    "exclude_self_response": (False, True),
    "leave_one_out": ("keep", "renorm", "auto"),
}
INVERSE = {"hessian_mode": ("inverse",), "hessian_source": ("token", "response"), "solver": ("auto", "direct", "dual")}


def _combinations(axes: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _name(options: dict[str, Any]) -> str:
    return "-".join(str(value) for value in options.values())


def _factors(case: Case, dtype: torch.dtype = torch.float64) -> ModuleFactors:
    return ModuleFactors(
        inputs=torch.from_numpy(case.inputs).to(dtype),
        output_grads=torch.from_numpy(case.output_grads).to(dtype),
        response=torch.from_numpy(case.response),
    )


def _responses(case: Case) -> Responses:
    return Responses(
        group=torch.from_numpy(case.group),
        accepted=torch.from_numpy(case.accepted),
        advantage=torch.from_numpy(case.advantage),
    )


def _score(case: Case, **options: Any) -> ModuleResult:
    return score_module(_factors(case), _responses(case), InfluenceConfig(precision="fp64", **options))


def _truth(case: Case, **options: Any) -> np.ndarray:
    config = InfluenceConfig(**options)
    names = ("hessian_mode", "hessian_source", "reg_lambda", *SHARED)
    return token_influence(
        outer_products(case.inputs, case.output_grads),
        case.response,
        case.group,
        case.accepted,
        case.advantage,
        **{name: getattr(config, name) for name in names},
    )


def _relative_error(scores: torch.Tensor, truth: np.ndarray) -> float:
    """max |difference| over max |truth|; both must be NaN at the same tokens."""
    found = scores.double().numpy()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(truth))
    return float(np.nanmax(np.abs(found - truth)) / np.nanmax(np.abs(truth)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("options", _combinations(INVERSE | SHARED), ids=_name)
def test_inverse_scores_equal_the_definition(options: dict[str, Any], case: str) -> None:
    batch = CASES[case]()

    result = _score(batch, **options)

    assert _relative_error(result.scores, _truth(batch, **options)) < 1e-9
    assert result.residual is not None
    assert result.residual < 1e-9


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("options", _combinations(SHARED), ids=_name)
def test_identity_scores_equal_the_definition(options: dict[str, Any], case: str) -> None:
    batch = CASES[case]()

    result = _score(batch, hessian_mode="identity", **options)

    assert _relative_error(result.scores, _truth(batch, hessian_mode="identity", **options)) < 1e-12
    assert (result.route, result.residual) == ("identity", None)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("source", ["token", "response"])
@pytest.mark.parametrize("solver", ["direct", "dual"])
def test_float32_scores_stay_close_to_the_definition(case: str, source: str, solver: str) -> None:
    batch = CASES[case]()
    options: dict[str, Any] = {"hessian_source": source, "solver": solver, "exclude_self_response": True}

    result = score_module(_factors(batch, torch.float32), _responses(batch), InfluenceConfig(**options))

    assert result.scores.dtype == torch.float32
    assert _relative_error(result.scores, _truth(batch, **options)) < 1e-4
    assert result.residual is not None
    assert result.residual < 1e-4


@pytest.mark.parametrize("reg_lambda", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("solver", ["direct", "dual"])
def test_given_damping_is_taken_as_it_is(reg_lambda: float, solver: str) -> None:
    batch = random_batch()
    options: dict[str, Any] = {"reg_lambda": reg_lambda, "solver": solver}

    assert _relative_error(_score(batch, **options).scores, _truth(batch, **options)) < 1e-9


@pytest.mark.parametrize("options", _combinations({**INVERSE, "exclude_self_response": (False, True)}), ids=_name)
def test_scores_of_a_response_sum_to_its_own_influence(options: dict[str, Any]) -> None:
    batch = random_batch(seed=11, tokens=200)
    result = _score(batch, scope="all_selected", **options)
    gradients = outer_products(batch.inputs, batch.output_grads)
    summed = np.stack([gradients[batch.response == r].sum(axis=0) for r in range(len(batch.group))])
    rows = gradients if options["hessian_source"] == "token" else summed
    hessian = rows.T @ rows + 0.1 * np.square(rows).sum() / rows.shape[1] * np.eye(rows.shape[1])
    config = InfluenceConfig(**options)
    accepted = torch.from_numpy(batch.accepted)
    weights = response_weights(accepted, torch.from_numpy(batch.advantage), config)
    assert weights is not None
    directions = np.broadcast_to(contrast_matrix(weights, accepted, config).numpy() @ summed, summed.shape)

    for r, (direction, gradient) in enumerate(zip(directions, summed, strict=True)):
        influence = direction @ np.linalg.solve(hessian, gradient)
        assert float(result.scores[torch.from_numpy(batch.response == r)].sum()) == pytest.approx(influence, rel=1e-9)


def test_order_of_tokens_does_not_matter() -> None:
    batch = random_batch()
    order = np.random.default_rng(0).permutation(len(batch.response))
    shuffled = Case(
        batch.inputs[order],
        batch.output_grads[order],
        batch.response[order],
        batch.group,
        batch.accepted,
        batch.advantage,
    )

    torch.testing.assert_close(_score(shuffled).scores, _score(batch).scores[torch.from_numpy(order)])


def test_accepted_responses_score_above_zero_and_rejected_below_in_sum() -> None:
    batch = random_batch()
    scores = _score(batch, scope="all_selected", hessian_mode="identity").scores.numpy()
    gradients = outer_products(batch.inputs, batch.output_grads)
    side = batch.accepted[batch.response]
    contrast = (
        gradients[side].sum(axis=0) / batch.accepted.sum() - gradients[~side].sum(axis=0) / (~batch.accepted).sum()
    )

    difference = scores[side].sum() / batch.accepted.sum() - scores[~side].sum() / (~batch.accepted).sum()

    assert difference == pytest.approx(contrast @ contrast)


def test_auto_takes_the_smaller_system() -> None:
    assert _score(random_batch(tokens=60), scope="all_selected").route == "direct"
    assert _score(fewer_tokens_than_dim(), scope="all_selected").route == "dual"
    assert _score(random_batch(), hessian_source="response").route == "dual"


def test_route_tells_when_groups_differ() -> None:
    batch = random_batch(tokens=40)
    skewed = np.where(np.arange(40) < 9, batch.response, 0)  # all but one token each belong to response 0 of prompt 7
    case = Case(batch.inputs, batch.output_grads, skewed, batch.group, batch.accepted, batch.advantage)

    assert _score(case).route == "direct+dual"


def test_scores_come_in_the_precision_asked_for() -> None:
    batch = random_batch()

    assert _score(batch).scores.dtype == torch.float64
    assert score_module(_factors(batch), _responses(batch), InfluenceConfig()).scores.dtype == torch.float32


def test_half_precision_factors_are_scored_in_float32() -> None:
    batch = random_batch()
    rounded = _factors(batch, torch.bfloat16)
    exact = ModuleFactors(
        inputs=rounded.inputs.double(), output_grads=rounded.output_grads.double(), response=rounded.response
    )

    low = score_module(rounded, _responses(batch), InfluenceConfig())
    high = score_module(exact, _responses(batch), InfluenceConfig(precision="fp64"))

    torch.testing.assert_close(low.scores.double(), high.scores, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["identity", "inverse"])
def test_no_tokens_give_no_scores(mode: str) -> None:
    empty = ModuleFactors(
        inputs=torch.empty(0, 3), output_grads=torch.empty(0, 2), response=torch.empty(0, dtype=torch.int64)
    )

    result = score_module(empty, _responses(lonely_responses()), InfluenceConfig(hessian_mode=mode))  # type: ignore[arg-type]

    assert result.scores.shape == (0,)
    assert (result.route, result.residual, result.peak_bytes) == ("none", None, 0)


@pytest.mark.parametrize("scope", ["per_prompt", "all_selected"])
def test_a_single_response_has_no_contrast(scope: str) -> None:
    factors = ModuleFactors(
        inputs=torch.ones(4, 3), output_grads=torch.ones(4, 2), response=torch.zeros(4, dtype=torch.int64)
    )
    responses = Responses(group=torch.tensor([5]), accepted=torch.tensor([True]), advantage=torch.tensor([1.0]))

    result = score_module(factors, responses, InfluenceConfig(scope=scope))  # type: ignore[arg-type]

    assert result.scores.isnan().all()
    assert result.route == "none"


@pytest.mark.parametrize("solver", ["direct", "dual"])
def test_zero_gradients_score_zero(solver: str) -> None:
    batch = random_batch()
    silent = Case(
        batch.inputs, np.zeros_like(batch.output_grads), batch.response, batch.group, batch.accepted, batch.advantage
    )

    result = _score(silent, solver=solver)

    assert (result.scores == 0).all()
    assert result.residual == 0


def test_damping_too_small_to_solve_with_is_named() -> None:
    batch = fewer_tokens_than_dim()

    with pytest.raises(ValueError, match=r"reg_lambda: with 1e-300 .* raise it"):
        _score(batch, reg_lambda=1e-300, solver="direct", scope="all_selected")


def test_token_of_an_unknown_response_is_refused() -> None:
    batch = random_batch()
    few = Responses(
        group=torch.tensor([1, 1]), accepted=torch.tensor([True, False]), advantage=torch.tensor([1.0, -1.0])
    )

    with pytest.raises(ValueError, match=r"ModuleFactors.response: .* in \[0, 2\), got \[0, 8\]"):
        score_module(_factors(batch), few, InfluenceConfig())


class _LiveBytes(TorchDispatchMode):
    """Most bytes of new tensors alive at once; what an operation holds within itself is not seen."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self._count(tensor)
        return result

    def _count(self, tensor: torch.Tensor) -> None:
        size = tensor.untyped_storage().nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(tensor.untyped_storage(), self._release, size)

    def _release(self, size: int) -> None:
        self.now -= size


@pytest.mark.parametrize("solver", ["direct", "dual"])
@pytest.mark.parametrize("source", ["token", "response"])
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_peak_bytes_are_near_what_is_really_held(solver: Any, source: Any, precision: Any) -> None:
    batch = random_batch(tokens=600, k_in=16, k_out=20)
    config = InfluenceConfig(
        solver=solver, hessian_source=source, precision=precision, exclude_self_response=True, scope="all_selected"
    )
    factors, responses = _factors(batch), _responses(batch)
    with _LiveBytes() as live:
        result = score_module(factors, responses, config)

    assert live.peak <= 1.1 * result.peak_bytes
    assert result.peak_bytes <= 2.5 * live.peak


def test_batch_scores_are_the_sum_over_modules() -> None:
    first, second = random_batch(), random_batch(seed=8, k_in=2, k_out=5)
    second = Case(second.inputs, second.output_grads, first.response, first.group, first.accepted, first.advantage)
    config = InfluenceConfig(precision="fp64", exclude_self_response=True)

    batch = score_batch({"a": _factors(first), "b": _factors(second)}, _responses(first), config)

    singles = [score_module(_factors(case), _responses(first), config) for case in (first, second)]
    torch.testing.assert_close(batch.scores, singles[0].scores + singles[1].scores)
    assert batch.routes == {"a": singles[0].route, "b": singles[1].route}
    assert batch.residuals == {"a": singles[0].residual, "b": singles[1].residual}
    assert batch.dims == {"a": (3, 4), "b": (2, 5)}
    assert batch.peak_bytes == max(single.peak_bytes for single in singles)
    assert set(batch.timing) == set(PHASES)
    assert batch.timing["hessian_solve"] > 0


def test_batch_names_the_module_that_fails() -> None:
    batch = fewer_tokens_than_dim()
    config = InfluenceConfig(reg_lambda=1e-300, solver="direct", scope="all_selected")

    with pytest.raises(ValueError, match=r"^layers\.0\.q_proj: reg_lambda"):
        score_batch({"layers.0.q_proj": _factors(batch)}, _responses(batch), config)


def test_batch_refuses_modules_that_saw_different_tokens() -> None:
    batch = random_batch()
    other = Case(
        batch.inputs, batch.output_grads, batch.response[::-1].copy(), batch.group, batch.accepted, batch.advantage
    )

    with pytest.raises(ValueError, match="b: its tokens differ from those of a"):
        score_batch({"a": _factors(batch), "b": _factors(other)}, _responses(batch), InfluenceConfig())


def test_batch_without_modules_is_refused() -> None:
    with pytest.raises(ValueError, match="no module was captured"):
        score_batch({}, _responses(random_batch()), InfluenceConfig())
