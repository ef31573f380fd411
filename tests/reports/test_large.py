"""Five hundred points: the report stays short, shows the ends of each group, and the CSV files hold the rest."""

from __future__ import annotations

import csv
import io
import math

import pytest

from reports import appendix
from reports.excerpt import MOST_ROWS, excerpt, shown
from reports.report import render
from reports.snapshot import PointSnapshot, SweepSnapshot
from tests.reports.large import large_sweep
from tests.reports.reading import rows_below, tables

MOST_LINES = 700
LONGEST_TABLE = 65
LONGEST_CELL = 2_000


@pytest.fixture(scope="module")
def sweep() -> SweepSnapshot:
    return large_sweep()


@pytest.fixture(scope="module")
def report(sweep: SweepSnapshot) -> str:
    return render(sweep)


def test_the_report_of_a_large_sweep_stays_readable(report: str) -> None:
    assert len(report.splitlines()) < MOST_LINES
    for table in tables(report):
        assert len(table.rows) <= LONGEST_TABLE, table.heading
        assert max(len(cell) for row in table.rows for cell in row) < LONGEST_CELL, table.heading


def test_each_group_shows_its_highest_and_lowest_with_what_lies_between(sweep: SweepSnapshot, report: str) -> None:
    rows = rows_below(report, "`scope` = `per_prompt` (256 points)")
    std = {p.name: p.npz[0].std or 0.0 for p in sweep.points if p.npz and p.parameters["scope"] == "per_prompt"}
    ranked = sorted(std, key=lambda name: -std[name])
    assert [row["Job"].strip("`") for row in rows] == [*ranked[:6], "… 244 more", *ranked[-6:]]


def test_every_level_of_a_short_axis_is_summed_up(sweep: SweepSnapshot, report: str) -> None:
    rows = {(row["Axis"], row["Level"]): row for row in rows_below(report, "Experiment Results")}
    assert set(rows) == {
        *(("`scope`", level) for level in ("`per_prompt`", "`all_selected`")),
        *(("`lr`", level) for level in ("`0.1`", "`0.2`")),
        *(("`seed`", level) for level in ("`0`", "`1`")),
    }
    of_scope = [p for p in sweep.points if p.parameters["scope"] == "per_prompt"]
    row = rows["`scope`", "`per_prompt`"]
    assert (row["Points"], row["Succeeded"]) == ("256", str(sum(p.state == "succeeded" for p in of_scope)))


def test_failures_of_one_kind_are_told_once(sweep: SweepSnapshot, report: str) -> None:
    failed = sum(point.state == "failed" for point in sweep.points)
    assert failed > 10
    assert report.count("out of GPU memory") < 5
    assert f"and {failed - 6} more failed** after 1 attempt: `gpu_oom`, out of GPU memory" in report


def test_a_sweep_that_fits_is_shown_whole() -> None:
    small = large_sweep(MOST_ROWS)
    assert excerpt(small) is None
    assert shown(small, small.points) == list(small.points)
    assert len(rows_below(render(small), "Experiment Results")) == MOST_ROWS


def test_without_figures_points_are_still_shown() -> None:
    bare = SweepSnapshot("s", axes=("n",), points=tuple(PointSnapshot(f"{n}", f"{n:03}", {"n": n}) for n in range(99)))
    found = excerpt(bare)
    assert found is not None
    assert (found.axis, found.figure, len(found.points)) == (None, "name", 24)
    render(bare)


def test_figures_that_cannot_be_ranked_come_last() -> None:
    points = [PointSnapshot(f"{n}", f"{n:03}", metrics={1: {"timing_s/step": float(n)}}) for n in range(98)]
    points.append(PointSnapshot("x", "x", metrics={1: {"timing_s/step": math.nan}}))
    found = excerpt(SweepSnapshot("s", points=tuple(points)))
    assert found is not None
    assert found.groups[0].bottom[-1].name == "x"


def test_the_csv_holds_every_point_and_every_figure_in_full(sweep: SweepSnapshot) -> None:
    rows = list(csv.DictReader(io.StringIO(appendix.points_csv(sweep))))
    assert [row["job"] for row in rows] == [point.name for point in sweep.points]
    for row, point in zip(rows, sweep.points, strict=True):
        assert row["parameter:width"] == str(point.parameters["width"])
        for step, values in point.metrics.items():
            for name, value in values.items():
                assert float(row[f"{name}@{step}"]) == value
        if point.npz:
            assert float(row["npz/std@1"]) == point.npz[0].std
        else:
            assert row["npz/std@1"] == ""
    tries = list(csv.DictReader(io.StringIO(appendix.attempts_csv(sweep))))
    assert len(tries) == 500
    assert (tries[0]["job"], float(tries[0]["ended_at"])) == (
        sweep.points[0].name,
        sweep.points[0].attempts[0].ended_at,
    )


def test_a_spreadsheet_runs_nothing_of_a_csv() -> None:
    point = PointSnapshot("p", "=1+1", {"x": "@SUM(A1)", "y": -2}, reason='a "quoted"\nline, with a comma')
    text = appendix.points_csv(SweepSnapshot("s", points=(point,)))
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["job"], row["parameter:x"], row["parameter:y"]) == ("'=1+1", "'@SUM(A1)", "-2")
    assert row["reason"] == 'a "quoted"\nline, with a comma'
