"""Every figure of a search's table stands in the database, read with sqlite3 and json alone."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

from orchestrator.snapshot import sweep_snapshot
from reports.report import render
from tests.orchestrator.search.searching import SearchRehearsal, spec_of
from tests.reports.reading import Table, tables
from tests.reports.tracing.figures import disagreements, figures, plain

Trial = tuple[int, str, dict[str, float], list[float]]


def test_every_figure_of_the_table_of_trials_is_the_stored_one(tmp_path: Path) -> None:
    report, stored = searched(tmp_path)
    table = next(table for table in tables(report) if "Trial" in table.titles)
    assert table.titles == ("Trial", "Job", "`x`", "`m/loss`", "")
    assert problems(table, stored) == []
    assert [row[0] for row in table.rows] == [str(trial[0]) for trial in sorted(stored, key=lambda trial: trial[3])]


def test_another_figure_in_the_table_is_found(tmp_path: Path) -> None:
    report, stored = searched(tmp_path)
    table = next(table for table in tables(report) if "Trial" in table.titles)
    number, name, params, values = stored[0]
    assert problems(table, [(number, name, params, [values[0] + 1]), *stored[1:]])


def searched(tmp_path: Path) -> tuple[str, list[Trial]]:
    rehearsal = SearchRehearsal(tmp_path, spec_of(trials=5, sampler="random"))
    rehearsal.drive()
    report = render(sweep_snapshot(rehearsal.store, rehearsal.paths, "s"))
    query = 'select number, name, params, "values" from trials join points on points.id = trials.point'
    with sqlite3.connect(rehearsal.paths.database) as db:
        rows = db.execute(query).fetchall()
    return report, [(number, name, json.loads(params), json.loads(values)) for number, name, params, values in rows]


def problems(table: Table, stored: list[Trial]) -> list[str]:
    found = []
    trials = {trial[0]: trial for trial in stored}
    for row in table.rows:
        number, name, params, values = trials[int(row[0])]
        if row[1] != f"`{name}`":
            found.append(f"trial {number} is {name}, not {row[1]}")
        found += disagreements(figures(re.sub("`", "", row[2])), [params["x"]])
        found += disagreements(figures(plain(row[3])), values)
    return found
