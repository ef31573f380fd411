"""Similarity of response gradients against the definition, and its summary by class."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import trainer_ext.influence
from tests.trainer_ext.influence.against_truth import factors_of, responses_of
from tests.truth.brute_force import Floats, PairSummary, outer_products, pair_summary, response_dots
from tests.truth.cases import CASES, Case, random_batch
from trainer_ext.influence import InfluenceConfig, ModuleFactors, Responses
from trainer_ext.influence.pair_table import SimilarityRow
from trainer_ext.influence.similarity import Similarity, SimilaritySums, similarity

PAIRS = ("acc-acc", "rej-rej", "acc-rej")
_Rows = dict[tuple[str, str, str], SimilarityRow]


def _module(case: Case, seed: int, k_in: int, k_out: int) -> Case:
    """Another module that saw the same tokens."""
    rng = np.random.default_rng(seed)
    tokens = len(case.response)
    return replace(case, inputs=rng.normal(size=(tokens, k_in)) + 0.3, output_grads=rng.normal(size=(tokens, k_out)))


def _similarity(*modules: Case, **options: Any) -> Similarity:
    factors = {f"layers.{i}.q_proj": factors_of(case) for i, case in enumerate(modules)}
    return similarity(factors, responses_of(modules[0]), InfluenceConfig(**{"precision": "fp64", **options}))


def _truth(*modules: Case, **options: Any) -> tuple[Floats, Floats]:
    config = InfluenceConfig(**options)
    dots = [
        response_dots(
            outer_products(case.inputs, case.output_grads),
            case.response,
            case.group,
            hessian_source=config.hessian_source,
            scope=config.scope,
            reg_lambda=config.reg_lambda,
        )
        for case in modules
    ]
    return np.sum([raw for raw, _ in dots], axis=0), np.sum([hinv for _, hinv in dots], axis=0)


def _assert_close(found: torch.Tensor | None, expected: Floats, rtol: float = 1e-9) -> None:
    assert found is not None
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=0, atol=rtol * np.nanmax(np.abs(expected)))


@pytest.mark.parametrize("source", ["token", "response"])
@pytest.mark.parametrize("scope", ["per_prompt", "all_selected", "global"])
@pytest.mark.parametrize("case", CASES)
def test_dots_equal_the_definition(case: str, scope: str, source: str) -> None:
    batch = CASES[case]()
    raw, hinv = _truth(batch, scope=scope, hessian_source=source)
    for solver in ("auto", "direct", "dual", "pcg"):
        tolerance = 1e-12 if solver == "pcg" else -1.0
        result = _similarity(batch, scope=scope, hessian_source=source, solver=solver, residual_tolerance=tolerance)

        _assert_close(result.raw_dot, raw, rtol=1e-12)
        _assert_close(result.hinv_dot, hinv)
        assert result.residual is not None
        assert result.residual < 1e-9


@pytest.mark.parametrize("scope", ["per_prompt", "all_selected"])
def test_dots_add_over_modules(scope: str) -> None:
    first = random_batch(seed=51)
    modules = (first, _module(first, 1, 6, 2), _module(first, 2, 1, 5))
    raw, hinv = _truth(*modules, scope=scope)

    result = _similarity(*modules, scope=scope)

    _assert_close(result.raw_dot, raw, rtol=1e-12)
    _assert_close(result.hinv_dot, hinv)


@pytest.mark.parametrize("source", ["token", "response"])
def test_given_damping_is_taken_as_it_is(source: str) -> None:
    batch = random_batch(seed=52)
    _, hinv = _truth(batch, hessian_source=source, reg_lambda=3.0, scope="all_selected")

    result = _similarity(batch, hessian_source=source, reg_lambda=3.0, scope="all_selected")

    _assert_close(result.hinv_dot, hinv)


def test_without_a_hessian_there_are_raw_dots_only() -> None:
    batch = random_batch(seed=53)

    result = _similarity(batch, hessian_mode="identity")

    assert result.hinv_dot is None
    _assert_close(result.raw_dot, _truth(batch)[0], rtol=1e-12)
    assert {row.matrix for row in result.table()} == {"RAW_DOT"}


@pytest.mark.parametrize("scope", ["per_prompt", "all_selected"])
def test_dots_are_symmetric_and_no_pair_is_closer_than_its_members_to_themselves(scope: str) -> None:
    result = _similarity(random_batch(seed=54), scope=scope)

    for dots in (result.raw_dot, result.hinv_dot):
        assert dots is not None
        torch.testing.assert_close(dots, dots.T, equal_nan=True)
        length = dots.diagonal().sqrt()
        assert (length > 0).all()
        known = ~dots.isnan()
        assert (dots.abs()[known] <= (length[:, None] * length[None, :])[known] * (1 + 1e-9)).all()


def test_dots_between_prompts_are_nan_exactly_where_each_prompt_has_its_own_hessian() -> None:
    batch = random_batch(seed=55)
    between = torch.from_numpy(batch.group[:, None] != batch.group[None, :])

    alone, together = (_similarity(batch, scope=scope) for scope in ("per_prompt", "all_selected"))

    assert alone.hinv_dot is not None
    assert together.hinv_dot is not None
    assert torch.equal(alone.hinv_dot.isnan(), between)
    assert not together.hinv_dot.isnan().any()
    assert not alone.raw_dot.isnan().any()


def test_prompts_without_contrast_count_too() -> None:
    batch = CASES["one_response_a_prompt"]()

    result = _similarity(batch)

    assert result.hinv_dot is not None
    assert (result.hinv_dot.diagonal() > 0).all()


@pytest.mark.parametrize("precision", ["fp32", "fast"])
@pytest.mark.parametrize("source", ["token", "response"])
def test_low_precision_stays_close(source: str, precision: str) -> None:
    batch = random_batch(seed=56, tokens=300, k_in=6, k_out=8)
    bound = {"fp32": 1e-4, "fast": 1e-2}[precision]
    raw, hinv = _truth(batch, hessian_source=source, scope="all_selected")

    result = _similarity(batch, hessian_source=source, scope="all_selected", precision=precision)

    _assert_close(result.raw_dot, raw, rtol=bound)
    _assert_close(result.hinv_dot, hinv, rtol=bound)


def test_exponents_of_tokens_count() -> None:
    batch = random_batch(seed=57)
    power = np.random.default_rng(58).integers(-9, 9, size=len(batch.response))
    split = replace(factors_of(batch), exponent=torch.from_numpy(power).to(torch.int8))
    scaled = replace(batch, inputs=np.ldexp(batch.inputs, power[:, None]))
    config = InfluenceConfig(precision="fp64", scope="all_selected")

    result = similarity({"q_proj": split}, responses_of(batch), config)

    raw, hinv = _truth(scaled, scope="all_selected")
    _assert_close(result.raw_dot, raw)
    _assert_close(result.hinv_dot, hinv)


def test_options_of_the_contrast_change_nothing() -> None:
    batch = random_batch(seed=65)
    plain = _similarity(batch)

    other = _similarity(
        batch,
        exclude_self_response=True,
        true_loo=True,
        token_unit_norm=True,
        contrastive_agg="sum",
        leave_one_out="keep",
    )

    assert torch.equal(other.raw_dot, plain.raw_dot)
    assert torch.equal(other.hinv_dot.nan_to_num(), plain.hinv_dot.nan_to_num())  # type: ignore[union-attr]


def _assert_row(row: Any, expected: PairSummary) -> None:
    found = (row.mean, row.cosine, row.self_dot)
    assert found == pytest.approx((expected.mean, expected.cosine, expected.self_dot), rel=1e-9, nan_ok=True)
    assert row.pairs == expected.pairs


@pytest.mark.parametrize("case", CASES)
def test_the_table_summarises_each_class_of_pairs(case: str) -> None:
    batch = CASES[case]()
    result = _similarity(batch, scope="all_selected")
    raw, hinv = _truth(batch, scope="all_selected")

    rows: _Rows = {(row.matrix, row.scope, row.pair): row for row in result.table()}

    assert len(rows) == len(result.table()) == 12
    for matrix, dots in (("RAW_DOT", raw), ("HINV_DOT", hinv)):
        for scope in ("PER_PROMPT", "ALL_PROMPT"):
            for pair in PAIRS:
                within = scope == "PER_PROMPT"
                summary = pair_summary(dots, batch.group, batch.accepted, within_prompts=within, pair=pair)
                _assert_row(rows[matrix, scope, pair], summary)


def test_the_table_of_separate_hessians_summarises_pairs_within_prompts() -> None:
    batch = random_batch(seed=59)
    rows: _Rows = {(row.matrix, row.scope, row.pair): row for row in _similarity(batch, scope="per_prompt").table()}
    raw, hinv = _truth(batch, scope="per_prompt")

    for pair in PAIRS:
        for matrix, dots in (("RAW_DOT", raw), ("HINV_DOT", hinv)):
            summary = pair_summary(dots, batch.group, batch.accepted, within_prompts=True, pair=pair)
            _assert_row(rows[matrix, "PER_PROMPT", pair], summary)
        everywhere = pair_summary(raw, batch.group, batch.accepted, within_prompts=False, pair=pair)
        _assert_row(rows["RAW_DOT", "ALL_PROMPT", pair], everywhere)


def test_a_summary_worked_by_hand() -> None:
    """Four responses of one prompt with gradients (1, 0), (3, 4), (0, 2) and (0, -1), the first two accepted."""
    factors = ModuleFactors(
        inputs=torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0], [0.0, -1.0]], dtype=torch.float64),
        output_grads=torch.ones(4, 1, dtype=torch.float64),
        response=torch.arange(4),
    )
    accepted = torch.tensor([True, True, False, False])
    responses = Responses(torch.zeros(4, dtype=torch.int64), accepted, torch.ones(4))

    config = InfluenceConfig(hessian_mode="identity", precision="fp64")
    rows = {(row.scope, row.pair): row for row in similarity({"q_proj": factors}, responses, config).table()}

    for scope in ("PER_PROMPT", "ALL_PROMPT"):
        _assert_row(rows[scope, "acc-acc"], PairSummary(mean=3.0, cosine=0.6, self_dot=13.0, pairs=1))
        _assert_row(rows[scope, "rej-rej"], PairSummary(mean=-2.0, cosine=-1.0, self_dot=2.5, pairs=1))
        # 1 * 0, 1 * 0, 4 * 2, 4 * -1 over lengths 1 and 5 by 2 and 1
        _assert_row(rows[scope, "acc-rej"], PairSummary(mean=1.0, cosine=0.0, self_dot=math.nan, pairs=4))


def _half(batch: Case, rows: np.ndarray[Any, Any]) -> Case:
    """A batch of these responses alone."""
    kept = np.isin(batch.response, rows)
    number = {int(row): i for i, row in enumerate(rows)}
    return replace(
        batch,
        inputs=batch.inputs[kept],
        output_grads=batch.output_grads[kept],
        response=np.array([number[int(r)] for r in batch.response[kept]]),
        group=batch.group[rows],
        accepted=batch.accepted[rows],
        advantage=batch.advantage[rows],
    )


def test_ranks_are_summarised_as_one_batch_where_prompts_lie_on_one_rank() -> None:
    batch = random_batch(seed=68)
    prompts = np.unique(batch.group)
    parts = [np.flatnonzero(np.isin(batch.group, some)) for some in (prompts[::2], prompts[1::2])]

    joined = Similarity.joined([_similarity(_half(batch, rows), scope="per_prompt") for rows in parts])

    assert joined.residual is not None
    whole = {(row.matrix, row.scope, row.pair): row for row in _similarity(batch, scope="per_prompt").table()}
    for row in joined.table():
        if row.scope == "PER_PROMPT":
            expected = whole[row.matrix, row.scope, row.pair]
            _assert_row(row, PairSummary(expected.mean, expected.cosine, expected.self_dot, expected.pairs))


def test_pairs_of_different_ranks_are_in_no_class_even_if_their_prompts_have_one_number() -> None:
    batch = random_batch(seed=69)
    one = _similarity(batch, hessian_mode="identity")

    twice = Similarity.joined([one, one])

    assert twice.hinv_dot is None
    for row, single in zip(twice.table(), one.table(), strict=True):
        _assert_row(row, PairSummary(single.mean, single.cosine, single.self_dot, 2 * single.pairs))


def test_modules_may_come_one_at_a_time() -> None:
    first = random_batch(seed=70)
    modules = {"a": factors_of(first), "b": factors_of(_module(first, 1, 6, 2))}
    config = InfluenceConfig(precision="fp64")
    sums = SimilaritySums(responses_of(first), config)

    for name, factors in modules.items():
        sums.add(name, factors)

    together = similarity(modules, responses_of(first), config)
    assert torch.equal(sums.result().raw_dot, together.raw_dot)


def test_a_token_of_an_unknown_response_is_refused() -> None:
    batch = random_batch()
    few = Responses(torch.tensor([0, 0]), torch.tensor([True, False]), torch.ones(2))

    with pytest.raises(ValueError, match=r"ModuleFactors.response: .* in \[0, 2\), got \[0, 8\]"):
        similarity({"q_proj": factors_of(batch)}, few, InfluenceConfig())


def test_modules_that_saw_different_tokens_are_refused() -> None:
    batch = random_batch()
    other = replace(batch, response=batch.response[::-1].copy())

    with pytest.raises(ValueError, match="b: its tokens differ from those of a"):
        similarity({"a": factors_of(batch), "b": factors_of(other)}, responses_of(batch), InfluenceConfig())


def test_no_module_is_refused() -> None:
    with pytest.raises(ValueError, match="no module was captured"):
        similarity({}, responses_of(random_batch()), InfluenceConfig())


@pytest.mark.parametrize("mode", ["identity", "inverse"])
def test_no_tokens_have_no_similarity(mode: str) -> None:
    nothing = ModuleFactors(torch.empty(0, 3), torch.empty(0, 2), torch.empty(0, dtype=torch.int64))

    result = similarity(
        {"q": nothing}, responses_of(random_batch()), InfluenceConfig.from_mapping({"hessian_mode": mode})
    )

    assert torch.equal(result.raw_dot, torch.zeros(9, 9, dtype=torch.float64))
    assert all(row.mean == 0 for row in result.table() if row.matrix == "RAW_DOT")


def test_similarity_is_part_of_the_public_face() -> None:
    """The package's name for it is the function, not the module of the same name."""
    assert trainer_ext.influence.similarity is similarity
