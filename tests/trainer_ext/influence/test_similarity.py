"""Similarity of response gradients against the definition, its summary by class, and what projection does to it."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import trainer_ext.influence
from tests.trainer_ext.influence.against_truth import factors_of, responses_of
from tests.truth.brute_force import Floats, PairSummary, outer_products, pair_summary, response_dots
from tests.truth.cases import CASES, Case, random_batch
from trainer_ext.influence import InfluenceConfig, ModuleFactors, Responses, projection_dims
from trainer_ext.influence.projection import Projection
from trainer_ext.influence.similarity import Similarity, SimilarityRow, compare_projection, projection_table, similarity

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


def test_the_projection_table_has_one_row_for_modules_that_are_alike() -> None:
    dims: dict[str, tuple[int, int]] = {}
    peak: dict[str, int] = defaultdict(int)
    for layer in range(3):
        for kind, pair in (("q_proj", (48, 48)), ("k_proj", (48, 8)), ("gate_proj", (48, 280))):
            dims[f"model.layers.{layer}.mlp.{kind}"] = pair
            peak[f"model.layers.{layer}.mlp.{kind}"] = 1000 * layer + pair[1]
    dims["model.layers.3.mlp.q_proj"], peak["model.layers.3.mlp.q_proj"] = (24, 48), 7

    rows = projection_table(dims, peak)

    assert [(r.module_type, r.modules, r.k_in, r.k_out, r.dim, r.peak_bytes) for r in rows] == [
        ("q_proj", 3, 48, 48, 2304, 2048),
        ("k_proj", 3, 48, 8, 384, 2008),
        ("gate_proj", 3, 48, 280, 13440, 2280),
        ("q_proj", 1, 24, 48, 1152, 7),
    ]


def _full(case: Case, k_in: int, k_out: int, seed: int = 60) -> ModuleFactors:
    return factors_of(_module(case, seed, k_in, k_out))


def test_a_projection_that_changes_nothing_is_perfect() -> None:
    batch = random_batch(seed=61)
    factors = factors_of(batch)

    fidelity = compare_projection(factors, factors, responses_of(batch))

    raw, _ = _truth(batch)
    _assert_close(fidelity.projected, raw, rtol=1e-12)
    _assert_close(fidelity.unprojected, raw, rtol=1e-12)
    assert fidelity.correlation == pytest.approx(1)
    assert fidelity.relative_error_of_self_dots == 0


def test_sides_that_saw_different_tokens_are_refused() -> None:
    batch = random_batch(seed=66)
    factors = factors_of(batch)
    shorter = ModuleFactors(factors.inputs[1:], factors.output_grads[1:], factors.response[1:])

    with pytest.raises(
        ValueError, match=r"compare_projection: response 0 has \d+ projected and \d+ unprojected tokens"
    ):
        compare_projection(shorter, factors, responses_of(batch))


def test_exponents_count_on_both_sides_of_a_comparison() -> None:
    batch = random_batch(seed=67)
    factors = factors_of(batch)
    power = torch.arange(factors.tokens) % 7 - 3
    split = replace(factors, exponent=power.to(torch.int8))
    scaled = replace(factors, inputs=torch.ldexp(factors.inputs, power[:, None]))

    fidelity = compare_projection(split, scaled, responses_of(batch))

    torch.testing.assert_close(fidelity.projected, fidelity.unprojected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_a_projection_that_scales_is_told_from_one_that_turns(scale: float) -> None:
    batch = random_batch(seed=62)
    factors = factors_of(batch)

    fidelity = compare_projection(replace(factors, inputs=factors.inputs * scale), factors, responses_of(batch))

    assert fidelity.correlation == pytest.approx(1)
    assert fidelity.relative_error_of_self_dots == pytest.approx(abs(scale**2 - 1))


def test_a_comparison_reports_both_sides_by_class() -> None:
    batch = random_batch(seed=63)
    full = _full(batch, 5, 6)
    projected = replace(full, inputs=full.inputs[:, :3])

    fidelity = compare_projection(projected, full, responses_of(batch))

    upper = torch.triu_indices(9, 9, offset=1)
    pairs = torch.stack([m[upper[0], upper[1]] for m in (fidelity.projected, fidelity.unprojected)])
    assert fidelity.correlation == pytest.approx(float(torch.corrcoef(pairs)[0, 1]))
    assert 0 < fidelity.relative_error_of_self_dots < 1
    gradients = outer_products(full.inputs.numpy(), full.output_grads.numpy())
    summed = np.stack([gradients[batch.response == r].sum(axis=0) for r in range(9)])
    _assert_close(fidelity.unprojected, summed @ summed.T, rtol=1e-12)
    means = sorted(row.mean for row in fidelity.rows)
    expected = sorted(
        pair_summary(dots.numpy(), batch.group, batch.accepted, within_prompts=within, pair=pair).mean
        for dots in (fidelity.projected, fidelity.unprojected)
        for within in (True, False)
        for pair in PAIRS
    )
    assert means == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_random_projections_keep_similarities_the_better_the_wider_they_are(seed: int) -> None:
    """Responses lean one way or the other, so that there are similarities to keep: between gradients of pure noise a
    projection of this size leaves none."""
    batch = random_batch(seed=64, tokens=200)
    lean = np.where(batch.response % 2 == 0, 0.5, -0.5)[:, None]
    full = _full(batch, 96, 64)
    full = replace(full, output_grads=full.output_grads + torch.from_numpy(lean))

    def fidelity(factor: int) -> float:
        config = InfluenceConfig(projection_dim_factor=factor)
        k_in, k_out = projection_dims(96, 64, config)
        sides = (
            Projection(96, k_in, seed=seed, module="m", side="in"),
            Projection(64, k_out, seed=seed, module="m", side="out"),
        )
        projected = replace(full, inputs=sides[0](full.inputs), output_grads=sides[1](full.output_grads))
        return compare_projection(projected, full, responses_of(batch)).correlation

    assert fidelity(1) == pytest.approx(1)
    assert fidelity(2) > 0.9
    assert fidelity(2) > fidelity(8) > fidelity(32)


def test_similarity_is_part_of_the_public_face() -> None:
    """The package's name for it is the function, not the module of the same name."""
    assert trainer_ext.influence.similarity is similarity
