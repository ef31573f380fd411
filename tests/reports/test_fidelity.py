"""Cost against fidelity: which curves there are, and where their knee is."""

from __future__ import annotations

import pytest

from reports.contrasts import Grid
from reports.fidelity import Curve, Level, curves, factor_axis
from tests.reports.made import crossed, made_point, made_sweep


def curve(*levels: tuple[float, float, float]) -> Curve:
    """(factor, seconds, std) from the coarsest projection to the finest."""
    return Curve("factor", "", "step", 1, tuple(Level(factor, cost, std, ()) for factor, cost, std in levels))


def test_the_knee_is_where_cost_begins_to_buy_little() -> None:
    found = curve((512, 146, 0.088), (128, 159, 0.180), (64, 195, 0.207))
    assert found.knee is found.levels[1]
    assert found.fidelity == pytest.approx((0.425, 0.870, 1.0), abs=1e-3)


def test_the_knee_is_the_level_furthest_above_the_line_between_the_ends() -> None:
    """By the distance from the line itself, which the ratio of the sides does not change."""
    levels = [(512.0, 10.0, 1.0), (256.0, 12.0, 4.0), (128.0, 20.0, 6.0), (64.0, 60.0, 7.0), (32.0, 200.0, 7.5)]
    (_, c0, f0), (_, c1, f1) = levels[0], levels[-1]
    above = {factor: (f - f0) / (f1 - f0) - (c - c0) / (c1 - c0) for factor, c, f in levels}
    knee = curve(*levels).knee
    assert knee is not None
    assert knee.factor == max(above, key=lambda factor: above[factor])


@pytest.mark.parametrize(
    "levels",
    [
        [(64, 10, 1.0), (32, 20, 2.0)],  # two levels are a line
        [(128, 10, 1.0), (64, 20, 2.0), (32, 30, 3.0)],  # straight
        [(128, 10, 1.0), (64, 25, 1.2), (32, 30, 3.0)],  # bent the other way
        [(128, 10, 3.0), (64, 20, 2.0), (32, 30, 1.0)],  # the finest is the worst
        [(128, 10, 1.0), (64, 9, 2.0), (32, 8, 3.0)],  # and costs nothing
        [(128, 100, 1.0), (64, 80, 1.5), (32, 101, 2.0)],  # cost falls on the way: noise
    ],
)
def test_there_is_no_knee_without_a_bend(levels: list[tuple[float, float, float]]) -> None:
    assert curve(*levels).knee is None


def test_replicates_are_averaged_and_other_axes_are_curves_of_their_own() -> None:
    sweep = crossed(
        {"scope": ["a", "b"], "factor": [64, 32], "seed": [0, 1]},
        lambda scope, factor, seed: made_point(
            {"scope": scope, "factor": factor},
            {"update_actor": 100 + seed},
            std=0.1 + 0.2 * seed,
            replicate={"seed": seed},
            name=f"{scope}{factor}{seed}",
        ),
    )
    found = curves(sweep)
    assert [(one.setting, one.cost) for one in found] == [("scope=a", "update_actor"), ("scope=b", "update_actor")]
    assert [(level.factor, level.cost_s) for level in found[0].levels] == [(64.0, 100.5), (32.0, 100.5)]
    assert found[0].levels[0].std == pytest.approx(0.2)


def test_the_factor_is_known_by_its_name_or_its_key() -> None:
    for axis in ("factor", "influence.projection_dim_factor"):
        sweep = made_sweep([made_point({axis: factor}) for factor in (64, 32)])
        assert factor_axis(Grid.of(sweep)) == axis
    assert factor_axis(Grid.of(made_sweep([made_point({"lr": rate}) for rate in (0.1, 0.2)]))) is None


def test_a_sweep_without_scores_or_times_has_no_curve() -> None:
    assert curves(made_sweep([made_point({"factor": f}, {"step": 3.0}) for f in (64, 32)])) == []
    assert curves(made_sweep([made_point({"factor": f}, std=0.1) for f in (64, 32)])) == []
