"""The cases of the step benchmark."""

from __future__ import annotations

import pytest

from trainer_ext.bench.step.cases import CASES, StepCase, chosen_cases


def named(name: str) -> StepCase:
    return next(case for case in CASES if case.name == name)


def test_every_factor_is_measured_with_either_capture_and_scope_after_a_step_without_trace() -> None:
    assert CASES[0] == StepCase("off", None)
    assert len(CASES) == 1 + 4 * 2 * 2
    assert named("f32-separate-per_prompt").settings == {
        "output_function": "log_prob_reward",
        "projection_dim_factor": 32,
        "capture": "separate",
        "scope": "per_prompt",
    }


def test_what_a_budget_would_cut_off_comes_last() -> None:
    assert [case.name for case in CASES[1:4]] == [
        "f64-inline-all_selected",
        "f32-inline-all_selected",
        "f512-inline-all_selected",
    ]
    assert CASES[-1].name == "f128-separate-per_prompt"


def test_only_inline_capture_has_goals() -> None:
    assert {case.name: case.goal for case in CASES if case.goal is not None} == {
        "f64-inline-all_selected": 0.10,
        "f32-inline-all_selected": 0.25,
        "f64-inline-per_prompt": 0.10,
        "f32-inline-per_prompt": 0.25,
    }


def test_cases_that_differ_in_their_capture_alone_should_score_alike() -> None:
    inline = named("f64-inline-per_prompt")
    assert [case.name for case in CASES if inline.same_scores_as(case)] == ["f64-separate-per_prompt"]
    assert not any(named("off").same_scores_as(case) for case in CASES)


def test_patterns_choose_in_the_order_of_the_table_and_off_is_always_there() -> None:
    chosen = chosen_cases(["f32-*-all*", "f64-inline-all_selected"])
    assert [case.name for case in chosen] == [
        "off",
        "f64-inline-all_selected",
        "f32-inline-all_selected",
        "f32-separate-all_selected",
    ]
    assert chosen_cases([]) == CASES


def test_a_pattern_without_a_case_is_named() -> None:
    with pytest.raises(ValueError, match=r"--cases: no case matches 'f31-\*'; there are off, f64-inline"):
        chosen_cases(["f64-*", "f31-*"])
