from __future__ import annotations

import math

from orchestrator.sinks.mlflow_summary import PointFigures, common_figures, summarise


def point(name: str, succeeded: bool = True, **figures: float) -> PointFigures:
    return PointFigures(name, succeeded, {f"summary/{key}": value for key, value in figures.items()})


def test_a_sweep_is_summed_up_by_least_median_and_most_with_the_points_that_have_them() -> None:
    found = summarise([point("a", step_s=3.0), point("b", step_s=1.0), point("c", step_s=10.0), point("d")])
    assert found.metrics == {"sweep/step_s_min": 1.0, "sweep/step_s_median": 3.0, "sweep/step_s_max": 10.0}
    assert found.tags == {"min.step_s": "b", "max.step_s": "c"}


def test_values_that_are_no_numbers_do_not_count_and_equal_ones_have_no_extremes() -> None:
    found = summarise([point("a", x=math.nan, y=math.inf), point("b", x=2.0), point("c", x=2.0)])
    assert set(found.metrics) == {"sweep/x_min", "sweep/x_median", "sweep/x_max"}
    assert found.tags == {}


def test_series_of_points_are_left_alone() -> None:
    assert summarise([PointFigures("a", True, {"actor/grad_norm": 1.0})]).metrics == {}


def test_the_columns_are_what_all_good_points_have_the_interesting_ones_first() -> None:
    points = [
        point("a", step_s=1.0, score_std=0.1, steps=2.0, zeta=5.0),
        point("b", step_s=2.0, score_std=0.2, steps=2.0, zeta=6.0, other=1.0),
        point("c", succeeded=False, steps=0.0),
    ]
    assert common_figures(points) == ["summary/score_std", "summary/step_s", "summary/zeta"]


def test_where_all_are_the_same_that_is_what_is_drawn() -> None:
    assert common_figures([point("a", steps=2.0), point("b", steps=2.0)]) == ["summary/steps"]
    assert common_figures([]) == []
