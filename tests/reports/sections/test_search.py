"""The report's section on a search, and its plots in words."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import pytest

from reports.plots.catalogue import SEARCH
from reports.plots.draw import draw
from reports.plots.style import images
from reports.report import render
from reports.snapshot import SweepSnapshot
from tests.reports.search_made import searched


def drawn(snapshot: SweepSnapshot) -> str:
    return render(snapshot, only={"search"})


def test_the_section_says_what_was_searched_and_what_came_of_it() -> None:
    report = drawn(searched())
    assert "5 complete, 1 infeasible, 1 pruned." in report
    assert "`factor` in `int(32, 512, log)`" in report
    assert "maximize `fidelity`, minimize `timing_s/solve`; subject to `memory <= 75`." in report
    assert "1 trial repeated a configuration" in report
    assert "Pruning saved 1.2 GPU-hours" in report
    assert "- 1 trial infeasible: did not fit into memory" in report


def test_the_front_is_a_table_and_its_knee_is_named() -> None:
    rows = [line for line in drawn(searched()).splitlines() if line.startswith("| 0 |") or "`job-" in line]
    assert [row.split(" | ")[1] for row in rows if row.startswith("| ")] == ["`job-0`", "`job-1`", "`job-3`"]
    assert rows[1].endswith("| 0.950 | 0.500 | knee |")
    assert "The knee is `job-1`" in drawn(searched())


def test_shares_of_the_parameters_stand_by_objective() -> None:
    assert "| `factor` | 90% | 75% |" in drawn(searched())
    assert "| `scope` | 10% | 25% |" in drawn(searched())


def test_of_one_objective_the_trials_stand_best_first() -> None:
    search = searched().search
    assert search is not None
    trials = tuple(dataclasses.replace(t, values=t.values[1:] if t.values else None) for t in search.trials)
    one = dataclasses.replace(
        search, objectives={"timing_s/solve": "minimize"}, trials=trials, front=(), knee=None, best=3
    )
    report = drawn(SweepSnapshot("s", search=one))
    table = [line for line in report.splitlines() if "`job-" in line]
    assert [line.split(" | ")[1] for line in table] == ["`job-3`", "`job-1`", "`job-2`", "`job-0`"]
    assert table[0].endswith("best |")
    assert "knee" not in report


@pytest.mark.parametrize("trials", [0, 1])
def test_a_search_without_results_is_no_section_or_a_short_one(trials: int) -> None:
    search = searched().search
    assert search is not None
    search = dataclasses.replace(search, trials=search.trials[:trials], front=(), knee=None, importance={})
    snapshot = SweepSnapshot("s", search=search)
    assert (drawn(snapshot).strip() == "") == (not trials)
    assert [plot(snapshot) for plot in SEARCH] == [None] * 4


def test_a_sweep_without_a_search_says_nothing_of_one() -> None:
    assert drawn(SweepSnapshot("s")).strip() == ""


def test_a_snapshot_with_a_search_survives_json() -> None:
    assert SweepSnapshot.from_json(searched().to_json()) == searched()


def test_plots_say_in_words_what_they_show() -> None:
    said = {plot.name: plot.alt for plotter in SEARCH if (plot := plotter(searched())) is not None}
    assert "the knee is job-1 (fidelity 0.95, timing_s/solve 0.5)" in said["search_front"]
    assert "fidelity: 1 after 7 trials; timing_s/solve: 0.25" in said["search_history"]
    assert "of 5 complete trials over factor, scope" in said["search_slice"]
    assert said["search_importance"] == "For fidelity, factor weighs most: 90%."


def test_every_plot_is_drawn_with_and_without_trials_that_came_to_nothing(tmp_path: Path) -> None:
    search = searched().search
    assert search is not None
    clean = dataclasses.replace(search, trials=search.trials[:5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for plotter in SEARCH:
            plot = plotter(SweepSnapshot("s", search=clean))
            assert plot is not None
            assert images(plot, ("svg",))["svg"].startswith(b"<?xml")
        written = draw(searched(), tmp_path)
    names = {"search_front", "search_history", "search_slice", "search_importance"}
    assert {path.stem for path in written} == names
