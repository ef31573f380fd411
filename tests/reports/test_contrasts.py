"""Which points are compared with which."""

from __future__ import annotations

import dataclasses

from reports.contrasts import Grid, compared
from tests.reports.made import crossed, made_point, made_sweep


def test_levels_of_numbers_go_down_and_each_is_held_against_the_one_before() -> None:
    grid = Grid.of(crossed({"factor": [64, 512, 128]}, lambda factor: made_point({"factor": factor})))
    assert grid.levels("factor") == [512, 128, 64]
    assert [(one.level, one.reference) for one in grid.adjacent("factor")] == [(128, 512), (64, 128)]


def test_levels_of_words_are_held_against_the_first() -> None:
    scopes = ["per_prompt", "all_selected", "global"]
    grid = Grid.of(crossed({"scope": scopes}, lambda scope: made_point({"scope": scope}, name=f"{scope}-run")))
    assert [(one.level, one.reference) for one in grid.adjacent("scope")] == [
        ("all_selected", "per_prompt"),
        ("global", "per_prompt"),
    ]


def test_pairs_are_equal_in_all_other_axes_replicates_included() -> None:
    sweep = crossed(
        {"scope": ["a", "b"], "factor": [64, 32], "seed": [0, 1]},
        lambda scope, factor, seed: made_point(
            {"scope": scope, "factor": factor}, replicate={"seed": seed}, name=f"{scope}{factor}{seed}"
        ),
    )
    (contrast,) = Grid.of(sweep).adjacent("factor")
    assert [(a.name, b.name) for a, b in contrast.pairs] == [
        ("a320", "a640"),
        ("a321", "a641"),
        ("b320", "b640"),
        ("b321", "b641"),
    ]
    assert Grid.of(sweep).factors == ["scope", "factor"]
    assert [len(group) for group in Grid.of(sweep).groups("factor")] == [4, 4]


def test_a_point_without_a_partner_is_in_no_pair() -> None:
    sweep = made_sweep([made_point({"scope": s, "factor": f}) for s, f in (("a", 64), ("a", 32), ("b", 64))])
    (contrast,) = Grid.of(sweep).adjacent("factor")
    assert [(a.name, b.name) for a, b in contrast.pairs] == [("a-32", "a-64")]


def test_points_that_failed_or_ran_with_another_configuration_are_left_out() -> None:
    done, failed, patched = (made_point({"factor": factor}) for factor in (64, 32, 16))
    failed = dataclasses.replace(failed, state="failed")
    attempt = dataclasses.replace(patched.attempts[0], patch={"influence.batch": 8})
    patched = dataclasses.replace(patched, attempts=(attempt,))
    assert [point.name for point in Grid.of(made_sweep([done, failed, patched])).points] == ["64"]


def test_an_axis_that_only_names_the_runs_separates_nothing() -> None:
    sweep = made_sweep([made_point({"run": f"f{factor}", "factor": factor}, name=f"f{factor}") for factor in (64, 32)])
    grid = Grid.of(sweep)
    assert grid.factors == ["factor"]
    assert len(grid.adjacent("factor")[0].pairs) == 1


def test_figures_that_are_missing_zero_or_not_finite_are_not_compared() -> None:
    values = {64: 1.0, 32: 2.0, 16: 0.0, 8: float("nan"), 4: None}
    sweep = made_sweep([made_point({"factor": factor}, name=str(factor)) for factor in values])
    grid = Grid.of(sweep)
    found = [compared(one, lambda point: values[int(point.name)]) for one in grid.adjacent("factor")]
    assert [[(one.ratio, one.increase) for one in pairs] for pairs in found] == [[(2.0, 1.0)], [], [], []]
