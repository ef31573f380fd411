"""Effects over replicates: what is paired, what is resampled, and what is not concluded."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from reports.report import render
from reports.snapshot import SweepSnapshot
from reports.statistics import Effect, effects
from tests.reports.made import crossed, made_point


def repeated(ratios: dict[int, float], seeds: int, noise: float = 0.01, shared: float = 1.0) -> SweepSnapshot:
    """Steps of 100 s at factor 64, times `ratios` at others; every seed multiplies all of its points by a number of its own."""
    generator = np.random.default_rng(11)
    of_seed = np.exp(generator.normal(0.0, shared, size=seeds))
    errors = {key: math.exp(generator.normal(0.0, noise)) for key in itertools.product("ab", ratios, range(seeds))}
    return crossed(
        {"scope": ["a", "b"], "factor": list(ratios), "seed": list(range(seeds))},
        lambda scope, factor, seed: made_point(
            {"scope": scope, "factor": factor},
            {"step": 100 * ratios[factor] * of_seed[seed] * errors[scope, factor, seed]},
            replicate={"seed": seed},
            name=f"{scope}{factor}{seed}",
        ),
    )


def of_step(sweep: SweepSnapshot, axis: str) -> list[Effect]:
    return [one for one in effects(sweep) if (one.measure, one.axis) == ("step (s)", axis)]


def test_a_known_ratio_is_found_within_seeds_that_differ_far_more() -> None:
    (effect,) = of_step(repeated({64: 1.0, 32: 1.2}, seeds=8), "factor")
    assert (effect.level, effect.reference, effect.size.n, effect.pairs) == (32, 64, 8, 16)
    assert effect.size.mean == pytest.approx(1.2, rel=0.01)
    assert effect.size.low <= 1.2 <= effect.size.high
    assert effect.size.high - effect.size.low < 0.03, "pairs leave nothing of the seeds' own spread"
    assert effect.p == 2 / 2**8


def test_no_effect_has_an_interval_around_one() -> None:
    (effect,) = of_step(repeated({64: 1.0, 32: 1.2}, seeds=8), "scope")
    assert effect.size.low < 1.0 < effect.size.high
    assert effect.p > 0.05


def test_a_seed_counts_once_however_many_settings_it_was_run_in() -> None:
    sweep = repeated({64: 1.0, 32: 1.2}, seeds=3)
    (effect,) = of_step(sweep, "factor")
    values = {point.name: point.metrics[1]["timing_s/step"] for point in sweep.points}
    by_seed = [
        math.sqrt(math.prod(values[f"{scope}32{seed}"] / values[f"{scope}64{seed}"] for scope in "ab"))
        for seed in range(3)
    ]
    assert effect.size.n == 3
    assert effect.size.mean == pytest.approx(math.prod(by_seed) ** (1 / 3))
    assert min(by_seed) * 0.999 <= effect.size.low <= effect.size.high <= max(by_seed) * 1.001


def test_p_is_adjusted_across_the_levels_of_a_factor() -> None:
    found = of_step(repeated({128: 1.0, 64: 1.1, 32: 1.1}, seeds=6, noise=0.02), "factor")
    assert [(effect.level, effect.reference) for effect in found] == [(64, 128), (32, 64)]
    first, second = found
    assert (first.p, first.adjusted) == (2 / 2**6, 2 * 2 / 2**6), "the smallest p is taken as often as there are levels"
    assert second.p > 0.05
    assert second.adjusted == pytest.approx(second.p), "the last one stays"


def test_the_section_shows_the_intervals_and_what_three_replicates_cannot_tell() -> None:
    drawn = render(repeated({64: 1.0, 32: 1.2}, seeds=3), only={"statistics"})
    row = next(line for line in drawn.splitlines() if line.startswith("| step (s) | `factor`"))
    assert "| 32 | 64 | 1.2" in row
    assert "covers 75% at most, and p is never below 0.25" in drawn
    assert "BCa bootstrap" in drawn


def test_rewards_are_compared_by_differences_zero_included() -> None:
    rewards = {(64, 0): 0.0, (64, 1): 0.25, (64, 2): -0.5, (32, 0): 0.5, (32, 1): 0.5, (32, 2): 0.25}
    sweep = crossed(
        {"factor": [64, 32], "seed": [0, 1, 2]},
        lambda factor, seed: made_point(
            {"factor": factor},
            {"critic/score/mean": rewards[factor, seed]},
            replicate={"seed": seed},
            name=f"{factor}-{seed}",
        ),
    )
    (effect,) = effects(sweep)
    assert (effect.measure, effect.is_difference, effect.size.n) == ("reward, last step", True, 3)
    assert effect.size.mean == pytest.approx((0.5 + 0.25 + 0.75) / 3)
    assert 0.25 <= effect.size.low < effect.size.high <= 0.75
    drawn = render(sweep, only={"statistics"})
    assert "| +0.5 | +0." in drawn
    assert "or differences where a figure may be zero" in drawn


def test_with_one_replicate_nothing_is_concluded() -> None:
    drawn = render(repeated({64: 1.0, 32: 1.2}, seeds=1), only={"statistics"})
    assert "nothing can be concluded about noise" in drawn
    assert "|" not in drawn, "no table"
    assert effects(repeated({64: 1.0, 32: 1.2}, seeds=1)) == []


def test_one_point_is_compared_with_nothing() -> None:
    assert render(crossed({"factor": [64]}, lambda factor: made_point({"factor": factor})), only={"statistics"}) == "\n"


def test_equal_sweeps_give_equal_bytes() -> None:
    sweep = repeated({128: 1.0, 64: 1.1, 32: 1.3}, seeds=5)
    again = SweepSnapshot.from_json(sweep.to_json())
    assert render(sweep, only={"statistics"}) == render(again, only={"statistics"})
