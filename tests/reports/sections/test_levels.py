"""The summary by level, above the excerpt of a large sweep."""

from __future__ import annotations

from reports.report import render
from tests.reports.made import made_point, made_sweep
from tests.reports.reading import rows_below


def test_axes_without_a_few_levels_have_no_summary_by_level() -> None:
    drawn = render(made_sweep([made_point({"lr": 0.5**n}, {"step": 1}) for n in range(50)]), only={"results"})
    assert "By level" not in drawn
    assert len(rows_below(drawn, "Experiment Results")) == 25  # twelve at each end, and how many are between
