"""Findings about time: ratios between levels, the phase behind them, and effects that are small."""

from __future__ import annotations

import dataclasses

import pytest

from reports.contrasts import Grid
from reports.findings.costs import cost_of_levels, small_effects
from reports.snapshot import PointSnapshot
from tests.reports.made import crossed, made_point, made_sweep

FINE = {"step": 2415, "update_actor": 1916, "pop_rows": 1069, "hessian_solve": 990, "gen": 410, "grad_staging": 66}
COARSE = {"step": 1012, "update_actor": 513, "pop_rows": 122, "hessian_solve": 81, "gen": 411, "grad_staging": 36}


def factors(**times: dict[str, float]) -> Grid:
    """Points by name of a factor: f64, f32."""
    return Grid.of(made_sweep([made_point({"factor": int(name[1:])}, found) for name, found in times.items()]))


def test_a_ratio_comes_with_its_seconds_and_the_phase_that_explains_it() -> None:
    (finding,) = cost_of_levels(factors(f64=COARSE, f32=FINE))
    assert finding.sentence.startswith(
        "**`factor` 32 takes 2.4× the `step` of 64** (2,415 s (40 min) against 1,012 s (17 min))"
    )
    assert "`hessian_solve` takes 12.2× (990 s against 81.0 s) and is 65% of the increase of `step`" in finding.sentence
    assert "96% of the increase of `pop_rows`" in finding.sentence
    assert finding.evidence == ("32/1/metrics.jsonl:1", "64/1/metrics.jsonl:1")


def test_the_level_that_takes_longer_is_the_subject() -> None:
    (finding,) = cost_of_levels(factors(f64=FINE, f32=COARSE))
    assert "`factor` 64 takes 2.4× the `step` of 32" in finding.sentence


def test_without_the_whole_step_the_widest_phase_that_was_timed_is_compared() -> None:
    (finding,) = cost_of_levels(
        factors(f128={"update_actor": 159, "hessian_solve": 6.6}, f64={"update_actor": 195, "hessian_solve": 31.1})
    )
    assert "1.23× the `update_actor` of 128" in finding.sentence
    assert "is 68% of the increase of `update_actor`" in finding.sentence


def test_of_several_levels_the_dearest_step_is_told_and_the_whole_range() -> None:
    (finding,) = cost_of_levels(factors(f512={"step": 100}, f128={"step": 110}, f64={"step": 150}))
    assert "`factor` 64 takes 1.36× the `step` of 128" in finding.sentence
    assert "Over all levels, `factor` 64 takes 1.50× that of 512." in finding.sentence


def test_an_increase_that_no_phase_explains_is_said_to_be_one() -> None:
    (finding,) = cost_of_levels(factors(f64={"step": 100, "gen": 50}, f32={"step": 200, "gen": 51}))
    assert "no phase that was timed apart is 20% of the increase" in finding.sentence


def test_a_phase_outside_of_another_is_no_share_of_it() -> None:
    """Rollouts are no part of the update, though their increase may be smaller than its."""
    (finding,) = cost_of_levels(
        factors(f64={"step": 100, "update_actor": 50, "gen": 40}, f32={"step": 200, "update_actor": 60, "gen": 130})
    )
    assert "`gen` takes 3.2×" in finding.sentence
    assert "90% of the increase of `step`." in finding.sentence
    assert "update_actor" not in finding.sentence


def test_pairs_on_different_cards_are_pointed_out() -> None:
    sweep = made_sweep([made_point({"factor": 64}, COARSE, pool="h100"), made_point({"factor": 32}, FINE, pool="h200")])
    (finding,) = cost_of_levels(Grid.of(sweep))
    assert finding.sentence.endswith("One pair compares `h200` against `h100`.")


def test_many_pairs_are_summed_up() -> None:
    sweep = crossed(
        {"scope": ["a", "b", "c", "d"], "factor": [64, 32]},
        lambda scope, factor: made_point({"scope": scope, "factor": factor}, {"step": 100 if factor == 64 else 200}),
    )
    (finding,) = cost_of_levels(Grid.of(sweep))
    assert "200 s against 100 s at `scope=a`; 200 s against 100 s at `scope=b`; 2 more pairs" in finding.sentence
    assert len(finding.evidence) == 4


def with_steps(per_prompt: float, all_selected: float) -> Grid:
    return Grid.of(
        made_sweep(
            [
                made_point({"scope": "per_prompt"}, {"step": per_prompt}),
                made_point({"scope": "all_selected"}, {"step": all_selected}),
            ]
        )
    )


def test_less_than_three_percent_is_called_small() -> None:
    grid = with_steps(1012, 1002)
    (finding,) = small_effects(grid)
    assert "`scope` makes a small difference in time**: less than 3% of `step`" in finding.sentence
    assert "(at most 1.0%)" in finding.sentence
    assert cost_of_levels(grid) == []


@pytest.mark.parametrize("other", [1044.0, 981.0])
def test_three_percent_either_way_is_not_small(other: float) -> None:
    grid = with_steps(1012, other)
    assert small_effects(grid) == []
    assert len(cost_of_levels(grid)) == 1


def test_one_pair_that_differs_is_enough_not_to_be_small() -> None:
    def make(scope: str, factor: int) -> PointSnapshot:
        slow = scope == "b" and factor == 32
        return made_point({"scope": scope, "factor": factor}, {"step": 110 if slow else 100})

    grid = Grid.of(crossed({"scope": ["a", "b"], "factor": [64, 32]}, make))
    assert small_effects(grid) == []


def test_nothing_is_found_without_times_or_without_a_second_level() -> None:
    untimed = made_sweep([made_point({"factor": factor}, std=0.1) for factor in (64, 32)])
    alone = made_sweep([made_point({"factor": 64}, COARSE)])
    failed = dataclasses.replace(made_point({"factor": 32}, FINE), state="failed")
    beside = made_sweep([made_point({"factor": 64}, COARSE), failed])
    for sweep in (untimed, alone, beside):
        assert cost_of_levels(Grid.of(sweep)) == small_effects(Grid.of(sweep)) == []


def test_small_steps_that_add_up_are_not_small() -> None:
    assert small_effects(factors(f64={"step": 100}, f32={"step": 102.9}, f16={"step": 105.8})) == []
    (finding,) = small_effects(factors(f64={"step": 100}, f32={"step": 101}, f16={"step": 102.5}))
    assert "(at most 2.5%)" in finding.sentence


def over_steps(*steps: tuple[float, float]) -> Grid:
    """Seconds of scopes a and b in each step."""
    points = [
        made_point({"scope": scope}, metrics={n: {"timing_s/step": pair[place]} for n, pair in enumerate(steps, 1)})
        for place, scope in enumerate("ab")
    ]
    return Grid.of(made_sweep(points))


def test_what_another_step_does_not_show_is_called_noise() -> None:
    (finding,) = cost_of_levels(over_steps((64.3, 46.1), (55.1, 77.6)))
    assert finding.sentence == (
        "**`a` takes 1.39× the `step` of `b` in step 1, but 0.71× in step 2** (64.3 s against 46.1 s): no difference that "
        "could be told from noise."
    )


def test_what_every_step_shows_is_an_effect() -> None:
    (finding,) = cost_of_levels(over_steps((64.3, 46.1), (77.6, 55.1)))
    assert finding.sentence == "**`a` takes 1.39× the `step` of `b`** (64.3 s against 46.1 s)."


def test_a_phase_that_grows_in_one_setting_alone_explains_nothing() -> None:
    def make(scope: str, at: int) -> PointSnapshot:
        step, loss = {("a", 0): (100, 45), ("b", 0): (64, 23), ("a", 1): (53, 16), ("b", 1): (46, 17)}[scope, at]
        return made_point({"scope": scope, "at": at}, {"step": step, "loss_backward": loss})

    found = [f.sentence for f in cost_of_levels(Grid.of(crossed({"scope": ["a", "b"], "at": [0, 1]}, make)))]
    assert any(
        "`a` takes" in sentence and "no phase that was timed apart grows with it" in sentence for sentence in found
    )


def test_the_trace_that_is_stated_beside_the_update_is_no_share_of_it() -> None:
    fine, coarse = ({**times, "trace": times["pop_rows"]} for times in (FINE, COARSE))
    (finding,) = cost_of_levels(factors(f64=coarse, f32=fine))
    assert "of the increase of `update_actor`" not in finding.sentence
    assert "is 65% of the increase of `step` and 96% of the increase of `pop_rows`" in finding.sentence


def test_words_have_no_range() -> None:
    sweep = made_sweep([made_point({"case": case}, {"step": step}) for case, step in (("a", 1), ("b", 2), ("c", 3))])
    (finding,) = cost_of_levels(Grid.of(sweep))
    assert "Over all levels" not in finding.sentence
