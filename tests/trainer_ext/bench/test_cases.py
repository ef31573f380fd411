from __future__ import annotations

import pytest

from trainer_ext.bench.cases import CASES, named_cases


def test_all_cases_take_means_without_the_own_response() -> None:
    configs = [case.config(factor=case.factor, precision="fp32") for case in CASES]
    assert {(c.contrastive_agg, c.exclude_self_response) for c in configs} == {("mean", True)}
    seen = {(c.hessian_mode, c.hessian_source, c.scope, c.projection_dim_factor) for c in configs}
    assert len(seen) == len(CASES)


def test_the_reference_figures_belong_to_the_token_source() -> None:
    known = {case.name: (case.reference_s, case.target_s) for case in CASES if case.reference_s is not None}
    assert known == {
        "f32_all_selected": (970.0, 15.0),
        "f32_per_prompt": (980.0, 15.0),
        "f64_all_selected": (78.0, 1.5),
        "f64_per_prompt": (81.0, 1.5),
    }
    assert {case.target_s for case in CASES if case.reference_s is None} == {0.3}


def test_factor_precision_and_solver_are_the_runs() -> None:
    config = named_cases(["f32_response"])[0].config(factor=128, precision="fp64", solver="dual")
    assert (config.projection_dim_factor, config.precision, config.solver) == (128, "fp64", "dual")
    assert (config.hessian_source, config.scope) == ("response", "all_selected")


def test_cases_come_in_the_tables_order_and_unknown_ones_are_named() -> None:
    assert [case.name for case in named_cases(["f64_per_prompt", "f32_per_prompt"])] == [
        "f32_per_prompt",
        "f64_per_prompt",
    ]
    assert named_cases([]) == CASES
    with pytest.raises(ValueError, match=r"no case f16; there are f32_all_selected"):
        named_cases(["f32_identity", "f16"])
