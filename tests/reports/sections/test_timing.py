"""The timing table beyond the phases that it knows."""

from __future__ import annotations

import pytest

from reports.report import render
from tests.reports.made import made_point, made_sweep
from tests.reports.reading import rows_below


@pytest.mark.parametrize("jobs", [1, 6])
def test_what_another_trainer_timed_is_shown_under_its_own_name(jobs: int) -> None:
    times = {"hessian_solve": 990.0, "solve_of_mlp_module": 19.0, "odd|name": 0.25}
    drawn = render(made_sweep([made_point({"factor": f}, times) for f in range(1, jobs + 1)]), only={"timing"})
    for name in ("`hessian_solve` (s)", "`solve_of_mlp_module` (s)", r"`odd\|name` (s)"):
        assert name in drawn
    assert drawn.count("19") == jobs


def test_what_our_trainer_states_beside_the_update_counts_with_it() -> None:
    times = {"pop_rows": 3.0, "update_actor": 20.0, "trace": 10.0, "step": 60.0}
    rows = {row["Phase"]: row for row in rows_below(render(made_sweep([made_point({}, times, name="only")])), "Timing")}
    assert rows["`influence` (s)"]["`only`"] == "10"
    assert rows["`pop_rows` % of `update_actor + influence`"]["`only`"] == "10.0%"
    assert rows["`update_actor + influence` % of `step`"]["`only`"] == "50.0%"
