"""Every figure of a report is traced to the database: the Markdown is parsed, and each cell is compared with what is stored.

The rules (`tracing/rules.py`) read the database with sqlite3 and json, and compare numbers with numbers: none of the code that
collects, rounds and writes figures for the report takes part. A column without a rule fails, and so does any figure that
stands in the report while the database holds another one.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.snapshot import sweep_snapshot
from orchestrator.store import Store
from reports import appendix
from reports.report import render
from tests.orchestrator.driving import Rehearsal
from tests.reports.reading import rows_below, tables
from tests.reports.tracing.figures import Figure, disagreements, figures
from tests.reports.tracing.jobs import Axes, drive
from tests.reports.tracing.rules import Cell, problem
from tests.reports.tracing.sentences import sentence_problems
from tests.reports.tracing.stored import Job, Stored, read

ALL = [
    Axes(scope, factor, seed) for scope in ("per_prompt", "all_selected") for factor in (64, 128, 32) for seed in (0, 1)
]
PROSE = ("Validation", "Git", "Provenance")
"""Tables whose cells are sentences or names; they have tests of their own."""


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    return drive(tmp_path_factory.mktemp("traced"), ALL)


@pytest.fixture(scope="module")
def report(driven: Rehearsal) -> str:
    return drawn(driven)


def drawn(rehearsal: Rehearsal) -> str:
    """By a process that comes later."""
    store = Store.open(rehearsal.paths.database, rehearsal.clock)
    try:
        return render(sweep_snapshot(store, rehearsal.paths, "s"))
    finally:
        store.close()


@functools.lru_cache(maxsize=1)
def cells(report: str) -> tuple[Cell, ...]:
    """All cells of all tables of figures."""
    return tuple(_cells(report))


def _cells(report: str) -> Iterator[Cell]:
    for table in tables(report)[1:]:  # the first is the header's
        if not table.heading.startswith(PROSE):
            for row in table.rows:
                named = dict(zip(table.titles, row, strict=True))
                yield from (Cell(table, title, named, text) for title, text in named.items())


def problems(report: str, stored: Stored) -> list[str]:
    return [f"{cell} ({found})" for cell in cells(report) if (found := problem(stored, cell))]


def test_every_figure_of_every_table_is_the_stored_one(driven: Rehearsal, report: str) -> None:
    assert problems(report, read(driven.paths.database)) == []
    checked = [cell for cell in cells(report) if figures(cell.text)]
    sections = {cell.table.headings[1] for cell in checked}
    assert len(checked) > 700
    assert {re.sub(r" \(.*", "", section) for section in sections} == {
        "Changes",
        "Experiment Results",
        "NPZ Score Distribution",
        "Timing",
        "Scaling",
        "Resources",
        "Attempts",
        "Gradient Similarity",
        "Statistics",
    }


@pytest.mark.parametrize("jobs", [ALL[:1], ALL[:2]], ids=["one job", "two jobs"])
def test_jobs_that_are_timed_side_by_side_show_the_stored_figures(tmp_path: Path, jobs: list[Axes]) -> None:
    rehearsal = drive(tmp_path, jobs)
    report = drawn(rehearsal)
    assert rows_below(report, "Timing")[0]["Phase"]
    assert problems(report, read(rehearsal.paths.database)) == []


def test_the_excerpt_of_a_large_sweep_and_its_medians_are_the_stored_ones(tmp_path: Path) -> None:
    rehearsal = drive(tmp_path, ALL[:6])
    for number in range(7):
        copy_jobs(rehearsal.paths.database, f"scope{number}", 1 + 0.0123 * (number + 1))
    report = drawn(rehearsal)
    stored = read(rehearsal.paths.database)
    assert len(stored.jobs) == 48
    assert "By level, medians" in report
    assert problems(report, stored) == []
    groups = re.findall(r"^#### `(\w+)` = `(\w+)` \((\d+) points\)$", report, re.MULTILINE)
    assert {level: int(points) for _, level, points in groups} == {
        str(level): len(stored.at("factor", str(level))) for level in (64, 128, 32)
    }


# ---- change what is stored, and the report is found out ----------------------------------------------------------------

Change = Callable[[dict[str, Any]], None]
"""Of an attempt's evidence."""


def metric(name: str, step: int) -> Change:
    def change(evidence: dict[str, Any]) -> None:
        evidence["metrics"][str(step)][name] *= 1.07

    return change


def node_memory(evidence: dict[str, Any]) -> None:
    for step in (1, 2):
        metric("perf/cpu_memory_used_gb", step)(evidence)


def score(field: str, step: int) -> Change:
    def change(evidence: dict[str, Any]) -> None:
        evidence["npz"][step - 1][field] = evidence["npz"][step - 1][field] * 2 + 1

    return change


def size(field: str) -> Change:
    def change(evidence: dict[str, Any]) -> None:
        evidence[field] = int(evidence[field] * 1.3)

    return change


def module(field: str) -> Change:
    def change(evidence: dict[str, Any]) -> None:
        evidence["npz"][-1]["dims"][0][field] *= 3

    return change


def dot(place: int, field: str) -> Change:
    def change(evidence: dict[str, Any]) -> None:
        evidence["npz"][0]["similarity"]["rows"][place][field] *= 2

    return change


TIMED = ("hessian_solve", "pop_rows", "forward_1", "loss_backward", "score_aggregation")
CHANGES: dict[str, Change] = {
    **{f"rows {step}": metric("influence_trace/rows_emitted", step) for step in (1, 2)},
    **{f"grad_norm {step}": metric("actor/grad_norm", step) for step in (1, 2)},
    **{f"{phase}": metric(f"timing_s/influence_{phase}", 1) for phase in TIMED},
    **{f"{phase}": metric(f"timing_s/{phase}", 1) for phase in ("gen", "update_actor", "step")},
    "step of the second step": metric("timing_s/step", 2),
    "node's memory": node_memory,
    **{f"{field} {step}": score(field, step) for field in ("mean", "std", "min", "max", "valid") for step in (1, 2)},
    **{field: size(field) for field in ("gpu_peak_bytes", "host_peak_bytes", "card_bytes")},
    **{f"modules' {field}": module(field) for field in ("k_in", "k_out", "modules", "residual")},
    **{f"dot {place} {field}": dot(place, field) for place in (0, 4, 9) for field in ("mean", "cosine", "pairs")},
    "self-dot": dot(1, "self_dot"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_figure_that_is_changed_in_the_database_is_missed_in_the_report(
    driven: Rehearsal, report: str, change: Change
) -> None:
    with changed(driven.paths.database, "attempts", "evidence", ALL[0].name, change):
        assert problems(report, read(driven.paths.database)) != []


def other_lines(git: dict[str, Any]) -> None:
    git["changes"]["files"][0]["removed"] += 1


def other_guess(predicted: dict[str, Any]) -> None:
    predicted["on"]["h100"]["gpu_bytes"]["high"] *= 1.1


@pytest.mark.parametrize(
    ("table", "column", "change"), [("sweeps", "git", other_lines), ("points", "predicted", other_guess)]
)
def test_predictions_and_changes_of_files_are_missed_too(
    driven: Rehearsal, report: str, table: str, column: str, change: Change
) -> None:
    with changed(driven.paths.database, table, column, ALL[0].name, change):
        assert problems(report, read(driven.paths.database)) != []


def test_a_job_that_began_earlier_is_missed(driven: Rehearsal, report: str) -> None:
    execute(driven.paths.database, "update attempts set started_at = started_at - 400")
    try:
        assert problems(report, read(driven.paths.database)) != []
    finally:
        execute(driven.paths.database, "update attempts set started_at = started_at + 400")


def test_a_report_that_is_drawn_again_follows_the_database(driven: Rehearsal) -> None:
    def everything(evidence: dict[str, Any]) -> None:
        for name, change in CHANGES.items():
            if not name.startswith(("modules' k_", "pop_rows")):  # what others are computed from
                change(evidence)

    with changed(driven.paths.database, "attempts", "evidence", ALL[0].name, everything):
        assert problems(drawn(driven), read(driven.paths.database)) == []


# ---- tables of sentences -----------------------------------------------------------------------------------------------


def test_figures_of_the_evidence_of_each_check_are_the_stored_ones(driven: Rehearsal, report: str) -> None:
    stored = read(driven.paths.database)
    rows = {row["Check"]: row["Evidence"] for row in rows_below(report, "Validation")}
    n, jobs = len(stored.jobs), list(stored.jobs.values())
    rest, files = n - 2, [file for job in jobs for file in job.evidence["npz"]]
    sizes = [file["bytes"] / 1e6 for file in files]
    expected: dict[str, list[float]] = {
        f"All {n} jobs succeeded": [rest],
        "2 steps complete": [n, rest],
        "`rows_emitted > 0` all steps": [*span(jobs, "influence_trace/rows_emitted"), rest],
        "Captured response tokens": [*span(jobs, "influence_trace/debug_capture_selected_tokens"), rest],
        "Timing metrics non-zero": [*span(jobs, "timing_s/influence_pop_rows"), rest],
        "`grad_norm` finite": [*span(jobs, "actor/grad_norm"), rest],
        "No CUDA errors / NaN": [
            sum(job.evidence["log_lines"] for job in jobs), rest, sum(file["valid"] for file in files), 0,
        ],
        "Score distribution sane": [
            min(file["std"] for file in files), max(file["std"] for file in files),
            max(abs(file["mean"]) / file["std"] for file in files), 0, 2 * n - 2,
        ],
        "NPZ intact": [2 * n, n, min(sizes), max(sizes), 2 * n - 2],
    }  # fmt: skip
    for check, values in expected.items():
        assert disagreements(figures(rows[check]), values) == [], check
    assert rows.keys() - expected.keys() == {"Out of memory, then recovered", "Code pushed to remote"}
    lines = re.findall(r"; [0-9a-f]+/\d+/(console\.log:\d+: [^;…]*)", rows["Out of memory, then recovered"])
    assert lines
    assert all(any(line in str(one["facts"]) for job in jobs for one in job.attempts) for line in lines)


def test_figures_of_key_findings_are_the_stored_ones(driven: Rehearsal, report: str) -> None:
    stored, sentences = read(driven.paths.database), key_findings(report)
    assert len(sentences) > 8
    assert [bad for sentence in sentences for bad in sentence_problems(stored, sentence)] == []


@pytest.mark.parametrize("name", ["step", "hessian_solve", "std 1", "card_bytes", "modules' modules", "dot 0 mean"])
def test_a_figure_that_is_changed_is_missed_in_the_findings(driven: Rehearsal, report: str, name: str) -> None:
    job = {"hessian_solve": ALL[9].name, "card_bytes": ALL[4].name, "modules' modules": ALL[9].name}.get(
        name, ALL[0].name
    )
    with changed(driven.paths.database, "attempts", "evidence", job, CHANGES[name]):
        stored = read(driven.paths.database)
        assert [bad for sentence in key_findings(report) for bad in sentence_problems(stored, sentence)] != []


def key_findings(report: str) -> list[str]:
    section = report.split("### Key Findings\n", 1)[1].split("\n### ", 1)[0]
    return [line for line in section.splitlines() if re.match(r"\d+\. ", line)]


def test_the_csv_holds_the_stored_figures(driven: Rehearsal) -> None:
    snapshot = sweep_snapshot(driven.store, driven.paths, "s")
    rows = {row["job"]: row for row in csv.DictReader(io.StringIO(appendix.points_csv(snapshot)))}
    for job in read(driven.paths.database).jobs.values():
        row = rows[job.name]
        for step in ("1", "2"):
            for name, value in job.evidence["metrics"][step].items():
                assert float(row[f"{name}@{step}"]) == value
            for field in ("mean", "std", "min", "max", "valid", "bytes"):
                assert float(row[f"npz/{field}@{step}"]) == job.npz(field, int(step))
        assert float(row["gpu_hours"]) == pytest.approx(job.gpu_hours())
        assert int(row["gpu_peak_bytes"]) == job.evidence["gpu_peak_bytes"]


def test_evidence_names_lines_that_hold_the_figures(driven: Rehearsal, report: str) -> None:
    """The first place of the rows' check, opened."""
    evidence = next(row["Evidence"] for row in rows_below(report, "Validation") if "rows_emitted" in row["Check"])
    match = re.search(r"`([^`:]+metrics\.jsonl):(\d+)-(\d+)`", evidence)
    assert match
    lines = (driven.paths.sweep("s") / match[1]).read_text().splitlines()
    job = next(job for job in read(driven.paths.database).jobs.values() if match[1].startswith(job.last["point"]))
    for step, line in enumerate(lines[int(match[2]) - 1 : int(match[3])], start=1):
        name = "influence_trace/rows_emitted"
        assert json.loads(line) == {"step": step, "data": job.evidence["metrics"][str(step)]}
        assert json.loads(line)["data"][name] == job.metric(name, step)


def test_the_header_counts_and_adds_up_what_is_stored(driven: Rehearsal, report: str) -> None:
    jobs = list(read(driven.paths.database).jobs.values())
    header = {row["Item"]: row["Details"] for row in rows_below(report, tables(report)[0].heading)}
    succeeded = sum(job.state == "succeeded" for job in jobs)
    retried, flagged = (
        sum(map(test, jobs)) for test in (lambda j: len(j.attempts) > 1, lambda j: j.last["anomalies"] != [])
    )
    assert disagreements(figures(header["Delivery"]), [succeeded, len(jobs), retried, flagged]) == []
    hours = sum(job.gpu_hours() for job in jobs)
    assert disagreements(figures(header["Started / finished"])[-2:], [hours, 900]) == []
    total = re.search(r"([\d.,]+) GPU hours in all, ([\d.,]+) of them", report)
    assert total
    lost = sum(
        8 * (a["ended_at"] - a["started_at"]) / 3600 for j in jobs for a in j.attempts if a["verdict"] != "completed"
    )
    assert disagreements([Figure(float(word), 0.1) for word in total.groups()], [hours, lost]) == []


def test_notes_and_footnotes_say_what_is_stored(driven: Rehearsal, report: str) -> None:
    jobs = read(driven.paths.database).jobs
    notes = report.split("### Notes")[1]
    for job in jobs.values():
        for anomaly in job.last["anomalies"]:
            assert anomaly["message"] in notes
    claims = re.findall(r"`([\w-]+)` ([\d.]+) GiB \(the device saw ([\d.]+), the card has ([\d.]+)\)", report)
    assert {name for name, *_ in claims} == {
        j.name for j in jobs.values() if "memory_metric" in str(j.last["anomalies"])
    }
    for name, *words in claims:
        job = jobs[name]
        torch = max(job.metric("perf/max_memory_allocated_gb", step) for step in (1, 2))
        stored = [torch, job.gpu_gib(), job.evidence["card_bytes"] / 1024**3]
        assert disagreements([Figure(float(word), 0.1) for word in words], stored) == []


# ---- the database --------------------------------------------------------------------------------------------------------


def span(jobs: list[Job], name: str) -> list[float]:
    values = [job.metric(name, step) for job in jobs for step in (1, 2)]
    return [min(values), max(values)]


def execute(database: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(statement, values)
    connection.close()


def copy_jobs(database: Path, scope: str, scale: float) -> None:
    """All jobs of the first scope once more, under another one and with other figures: faster than to run them."""
    connection = sqlite3.connect(database)
    connection.row_factory = sqlite3.Row
    with connection:
        for table, key in (("points", "id"), ("attempts", "point")):
            for row in [dict(row) for row in connection.execute(f"select * from {table}")]:
                if not str(row.get("name", "per_prompt")).startswith("per_prompt") or len(row[key]) > 10:
                    continue
                row[key] += scope
                if table == "points":
                    row |= {"name": row["name"].replace("per_prompt", scope), "index": row["index"] + 1_000}
                    row["parameters"] = json.dumps({**json.loads(row["parameters"]), "scope": scope})
                else:
                    row |= {"token": row["token"] + scope, "evidence": scaled(row["evidence"], scale)}
                columns = ", ".join(f'"{name}"' for name in row)
                connection.execute(
                    f"insert into {table} ({columns}) values ({', '.join('?' * len(row))})", list(row.values())
                )
    connection.close()


def scaled(text: str, scale: float) -> str:
    """Evidence whose metrics and scores are larger by a factor."""
    evidence = json.loads(text)
    for values in evidence["metrics"].values():
        values.update({name: value * scale for name, value in values.items()})
    for file in evidence["npz"]:
        file.update({name: file[name] * scale for name in ("mean", "std", "min", "max")})
    return json.dumps(evidence)


@contextmanager
def changed(database: Path, table: str, column: str, job: str, change: Change) -> Iterator[None]:
    """A JSON column of one job (or of the sweep), changed until the block ends."""
    connection = sqlite3.connect(database)
    point = connection.execute("select id from points where name = ?", (job,)).fetchone()[0]
    where, values = {
        "attempts": ("where point = ?1 and n = (select max(n) from attempts where point = ?1)", (point,)),
        "points": ("where id = ?1", (point,)),
    }.get(table, ("", ()))
    text = connection.execute(f"select {column} from {table} {where}", values).fetchone()[0]
    connection.close()
    value = json.loads(text)
    change(value)
    execute(database, f"update {table} set {column} = ?2 {where}", point, json.dumps(value))
    try:
        yield
    finally:
        execute(database, f"update {table} set {column} = ?2 {where}", point, text)
