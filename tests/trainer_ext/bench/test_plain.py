"""The plain implementation gives the engine's scores, whatever it cuts its tokens into."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from trainer_ext.bench.plain import plain_scores
from trainer_ext.bench.synthetic import Batch, exact_factors, stored_factors
from trainer_ext.influence import InfluenceConfig, ModuleFactors, Responses, score_module

MODES = {
    "token": {"hessian_mode": "inverse", "hessian_source": "token"},
    "response": {"hessian_mode": "inverse", "hessian_source": "response"},
    "identity": {"hessian_mode": "identity"},
}


def make_config(mode: str, scope: str, **settings: object) -> InfluenceConfig:
    return InfluenceConfig.from_mapping(
        {"exclude_self_response": True, "precision": "fp64", "scope": scope, **MODES[mode], **settings}
    )


@pytest.fixture(scope="module")
def factors(batch: Batch) -> ModuleFactors:
    return exact_factors(batch, 5, 4, seed=2)


def assert_same(plain: torch.Tensor, exact: torch.Tensor) -> None:
    assert torch.equal(plain.isnan(), exact.isnan())
    scale = float(exact.nan_to_num().abs().max())
    torch.testing.assert_close(plain.double(), exact.double(), rtol=1e-4, atol=1e-4 * scale, equal_nan=True)


@pytest.mark.parametrize("rows", [1, 7, 10_000])
@pytest.mark.parametrize("scope", ["per_prompt", "all_selected"])
@pytest.mark.parametrize("mode", MODES)
def test_scores_are_those_of_the_engine(factors: ModuleFactors, batch: Batch, mode: str, scope: str, rows: int) -> None:
    config = make_config(mode, scope)
    exact = score_module(factors, batch.responses, config).scores
    assert bool(exact.isfinite().all())
    chunk_bytes = rows * 4 * factors.k_in * factors.k_out
    assert_same(plain_scores(factors, batch.responses, config, chunk_bytes=chunk_bytes), exact)


def test_a_given_damping_is_used(factors: ModuleFactors, batch: Batch) -> None:
    config = make_config("token", "all_selected", reg_lambda=1e-6)
    assert_same(plain_scores(factors, batch.responses, config), score_module(factors, batch.responses, config).scores)


@pytest.mark.parametrize("mode", MODES)
def test_a_class_of_one_and_a_group_without_contrast(factors: ModuleFactors, batch: Batch, mode: str) -> None:
    accepted = batch.responses.accepted.clone()
    accepted[:6] = True  # the first prompt: nothing rejected
    accepted[6:12] = torch.arange(6) == 2  # the second: one accepted response, which its own tokens leave out
    responses = Responses(batch.responses.group, accepted, batch.responses.advantage)
    config = make_config(mode, "per_prompt")
    scores = plain_scores(factors, responses, config)
    assert torch.equal(scores.isnan(), batch.response < 6)
    assert_same(scores, score_module(factors, responses, config).scores)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("contrastive_agg", "sum"),
        ("exclude_self_response", False),
        ("leave_one_out", "keep"),
        ("token_unit_norm", True),
        ("scope", "global"),
    ],
)
def test_what_it_does_not_implement_is_refused_by_name(
    factors: ModuleFactors, batch: Batch, setting: str, value: object
) -> None:
    config = dataclasses.replace(make_config("token", "all_selected"), **{setting: value})
    with pytest.raises(ValueError, match=f"{setting}: the plain implementation"):
        plain_scores(factors, batch.responses, config)


def test_rounded_factors_are_refused(factors: ModuleFactors, batch: Batch) -> None:
    with pytest.raises(ValueError, match="takes unrounded rows"):
        plain_scores(stored_factors(factors, "fast"), batch.responses, make_config("token", "all_selected"))


def test_the_setting_of_matrix_products_is_put_back(factors: ModuleFactors, batch: Batch) -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        plain_scores(factors, batch.responses, make_config("identity", "all_selected"))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
