"""The table of what was projected out."""

from __future__ import annotations

from typing import Any

from reports.report import render
from reports.snapshot import PointSnapshot
from tests.reports.made import made_point, made_sweep
from tests.reports.reading import rows_below

HEADING = "Projection of hack directions"


def projected(k: int, frac: float, **further: float) -> PointSnapshot:
    constants = {"vhack/modules_kept": 12, "vhack/modules_saved": 14, "vhack/axes_kept": 1052, "vhack/axes_saved": 1400}
    first = {**constants, "vhack/cin": 0.25, "vhack/cout": 0.0, "vhack/fired": 1.0, **further}
    times = {"timing_s/vhack": 0.03, "timing_s/step": 2.0}
    steps: dict[int, dict[str, Any]] = {1: {**first, **times}, 2: {**first, **times, "vhack/cin": 0.125}}
    return made_point({"k": k, "drop_bottom_frac": frac}, metrics=steps)


def test_shows_axes_and_modules_kept_the_threshold_and_both_shares_of_each_step() -> None:
    points = [projected(1, 0.0), projected(5, 0.25, **{"vhack/threshold": 0.0044, "vhack/cout": 0.002})]
    none, some = rows_below(render(made_sweep(points)), HEADING)
    assert (some["Modules kept"], some["Axes kept"], some["Threshold"]) == ("12 of 14", "1,052 of 1,400", "0.0044")
    assert (some["`cin` 1"], some["`cin` 2"], some["`cout` 1"], some["Fired 2"]) == ("0.25", "0.12", "0.0020", "1.00")
    assert some["Projection % of `step`"] == "1.5%"
    assert (none["Threshold"], none["`cout` 1"]) == ("", "0.0000")


def test_a_sweep_that_projects_nothing_has_no_such_section() -> None:
    assert HEADING not in render(made_sweep([made_point({"k": 1}, {"step": 1.0})]))
