from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from omegaconf import OmegaConf

from trainer_ext.influence import InfluenceConfig


def test_a_mapping_overrides_defaults() -> None:
    config = InfluenceConfig.from_mapping({"scope": "all_selected", "projection_dim_factor": 64, "reg_lambda": 1})

    assert config == InfluenceConfig(scope="all_selected", projection_dim_factor=64, reg_lambda=1.0)
    assert isinstance(config.reg_lambda, float)


def test_every_field_survives_a_round_trip() -> None:
    config = InfluenceConfig(hessian_mode="identity", target_modules=("o_proj",), seed=3)

    assert InfluenceConfig.from_mapping(dataclasses.asdict(config)) == config


def test_an_omegaconf_mapping_is_taken() -> None:
    values = OmegaConf.create({"exclude_self_response": True, "target_modules": ["q_proj", "k_proj"]})

    config = InfluenceConfig.from_mapping(values)

    assert config.exclude_self_response
    assert config.target_modules == ("q_proj", "k_proj")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("exclude_self_respons", "did you mean 'exclude_self_response'"),
        ("factor_projection_dim", "did you mean 'projection_dim_factor'"),
        ("zzz", "valid keys: hessian_mode, hessian_source"),
    ],
)
def test_an_unknown_key_names_the_nearest(key: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"no key '{key}'; {hint}"):
        InfluenceConfig.from_mapping({key: True})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hessian_mode": "invers"}, "hessian_mode: 'invers' is not one of identity, inverse"),
        ({"contrastive_agg": None}, "contrastive_agg: None is not one of sum, mean, advantage"),
        ({"solver": ["dual"]}, "is not one of auto, direct, dual"),
        ({"exclude_self_response": "true"}, "exclude_self_response: 'true' is not of type bool"),
        ({"projection_dim_factor": True}, "projection_dim_factor: True is not of type int"),
        ({"projection_dim_factor": 64.0}, "projection_dim_factor: 64.0 is not of type int"),
        ({"projection_dim_factor": 0}, "must be 1 or more, got 0"),
        ({"max_tokens_per_response": 0}, r"must be -1 \(all tokens\) or 1 or more, got 0"),
        ({"reg_lambda": "small"}, "reg_lambda: 'small' is not of type float"),
        ({"reg_lambda": float("nan")}, "reg_lambda: must be finite"),
        ({"target_modules": "q_proj"}, "target_modules: 'q_proj' is not a list of strings"),
        ({"target_modules": [1]}, "is not a list of strings"),
        ({"target_modules": []}, "target_modules: needs at least one name"),
    ],
)
def test_a_bad_value_says_what_the_field_takes(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InfluenceConfig.from_mapping(values)


def test_direct_construction_checks_too() -> None:
    with pytest.raises(ValueError, match="scope: 'everyone' is not one of"):
        InfluenceConfig(scope="everyone")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "agg", "leave_one_out", "renormalises"),
    [
        ("inverse", "mean", "auto", True),
        ("identity", "mean", "auto", False),
        ("inverse", "sum", "auto", False),
        ("identity", "mean", "renorm", True),
        ("inverse", "mean", "keep", False),
    ],
)
def test_leave_one_out_auto_renormalises_an_inverse_mean(
    mode: Any, agg: Any, leave_one_out: Any, renormalises: bool
) -> None:
    config = InfluenceConfig(hessian_mode=mode, contrastive_agg=agg, leave_one_out=leave_one_out)

    assert config.renormalises is renormalises
