"""Four sweeps that were once reported by hand, replayed: the report says all that those did, figure by figure.

What is compared is in `tables/*.yaml`, typed from those reports. Each replay goes through the fake cluster, the collectors,
triage and the store; nothing but files in attempt folders carries the figures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator.collect.foreign import collect_folder
from orchestrator.importing import ForeignRun, import_runs
from orchestrator.snapshot import sweep_snapshot
from reports.report import render
from reports.snapshot import SweepSnapshot
from tests.reports.seeds.printed import REPORTS, PrintedReport, agrees, printed
from tests.reports.seeds.reading import cells, lines_with, tables
from tests.reports.seeds.replay import foreign_run, replayed


@pytest.mark.parametrize("name", REPORTS)
def test_a_replay_shows_every_figure_flag_check_and_finding_of_the_report(name: str, tmp_path: Path) -> None:
    report = printed(name)
    rehearsal = replayed(tmp_path, report)
    snapshot = sweep_snapshot(rehearsal.store, rehearsal.paths, "s")
    drawn = render(snapshot)
    assert [*missing_figures(report, drawn)] == []
    assert [*missing_similarity(report, drawn)] == []
    assert dict(Counter(point.state for point in snapshot.points)) == report.facts["states"]
    assert flags(snapshot) == {job: sorted(codes) for job, codes in report.facts["flags"].items()}
    assert [*missing_checks(report, drawn)] == []
    assert [*missing_lines(drawn, report.facts["findings"])] == []
    assert [*missing_changes(report, drawn)] == []
    assert [*missing_header_and_git(report, drawn)] == []
    assert [*missing_places(rehearsal.paths.sweep("s"), drawn)] == []
    assert drawn.startswith(f"## {report.facts['date']}")


@pytest.mark.parametrize(
    ("name", "run"), [(name, run) for name in REPORTS for run in printed(name).facts.get("earlier_runs", {})]
)
def test_an_earlier_run_is_judged_from_its_folder_and_flagged_in_the_report(
    name: str, run: str, tmp_path: Path
) -> None:
    report = printed(name)
    earlier = report.facts["earlier_runs"][run]
    folder = foreign_run(tmp_path, report, run)
    rehearsal = replayed(tmp_path, PrintedReport({**report.facts, "jobs": {}, "changes": []}))
    runs = [ForeignRun(folder, collect_folder(folder), "h200")]
    import_runs(rehearsal.store, rehearsal.paths, "earlier", runs, "collect", now=rehearsal.clock.now())
    snapshot = sweep_snapshot(rehearsal.store, rehearsal.paths, "earlier")
    drawn = render(snapshot)
    assert flags(snapshot) == {run: earlier["flags"]}
    assert [*missing_lines(drawn, {"the flag in words": earlier["says"]})] == []
    for figure, shown in earlier["figures"].items():
        assert any(agrees(shown, cell) for cell in cells(drawn, run, figure)), figure


def missing_figures(report: PrintedReport, drawn: str) -> Iterator[str]:
    """Figures of every job, in the job's row or column."""
    for job in report.jobs:
        further = job.facts.get("further_timings", {})
        for name, shown in {**job.figures, **job.scores, **further}.items():
            section = "NPZ Score Distribution" if name in job.scores else ""
            found = cells(drawn, job.name, name, section)
            if not any(agrees(shown, cell) for cell in found):
                yield f"{job.name}: {name} {shown}, found {found}"
        if "pool" in job.facts and f"`{job.facts['pool']}`" not in cells(drawn, job.name, "Pool"):
            yield f"{job.name}: pool {job.facts['pool']}"
        for phase, shown in job.facts.get("shares", {}).items():
            found = cells(drawn, "other of pop_rows" if phase == "other" else phase, "% of pop_rows", "Timing")
            if not any(agrees(shown, cell) for cell in found):
                yield f"{job.name}: {phase} {shown} of pop_rows, found {found}"
        if "other" in job.facts:
            found = cells(drawn, job.name, "other of pop_rows", "Timing")
            if not any(agrees(job.facts["other"], cell) for cell in found):
                yield f"{job.name}: other of pop_rows {job.facts['other']}, found {found}"


def missing_similarity(report: PrintedReport, drawn: str) -> Iterator[str]:
    """Rows of the projection's sizes and of the two tables of dots."""
    found = [table for table in tables(drawn) if table.section == "Gradient Similarity"]
    for kind, shown in report.facts.get("projection", {}).items():
        rows = [row[2:6] for table in found for row in table.rows if f"`{kind}`" in row[0]]
        if not any(all(map(agrees, shown, row)) for row in rows):
            yield f"{kind}: {shown}, found {rows}"
    for matrix, pairs in report.facts.get("similarity", {}).items():
        part = drawn.partition(f"**{matrix}**")[2]
        for pair, (mean, cosine, own) in pairs.items():
            by_title = (("PER_PROMPT mean", mean), ("PER_PROMPT cos", cosine), ("Self-dot", own))
            for title, shown in by_title:
                first = next(iter(cells(part, pair, title)), "") if shown else ""
                if shown and not agrees(shown, first):
                    yield f"{matrix} {pair} {title}: {shown}, found {first}"


def missing_checks(report: PrintedReport, drawn: str) -> Iterator[str]:
    """Every check of the report's table passes, with its evidence."""
    rows = [row for table in tables(drawn) if table.section == "Validation" for row in table.rows]
    for check, evidence in report.facts["validation"].items():
        found = [row for row in rows if check in row[0].replace("`", "")]
        if not any(row[-1] == "Pass" and all(words in row[1] for words in evidence) for row in found):
            yield f"{check}: {evidence}, found {found}"


def missing_lines(drawn: str, wanted: dict[str, Sequence[str]]) -> Iterator[str]:
    """Whatever is said must stand in one line of the report."""
    for what, words in wanted.items():
        if not lines_with(drawn, list(words)):
            yield f"{what}: no line with {words}"


def missing_changes(report: PrintedReport, drawn: str) -> Iterator[str]:
    rows = [row for table in tables(drawn) if table.section.startswith("Changes") for row in table.rows]
    for path, why in report.facts["changes"]:
        if not any(path in row[0] and why in " ".join(row[1:]) for row in rows):
            yield f"{path}: {why}"


def missing_header_and_git(report: PrintedReport, drawn: str) -> Iterator[str]:
    """The sweep's scope, and the four rows about its commit."""
    rows = {row[0]: row[1] for table in tables(drawn) if len(table.titles) == 2 for row in table.rows}
    git = report.facts["git"]
    wanted = {
        "Scope": report.facts["scope"],
        "Commit": [git["commit"]],
        "Branch": [git["branch"]],
        "Remote": [git["remote"]],
        "Push": ["Yes" if git["pushed"] else "No"],
    }
    for row, words in wanted.items():
        if not all(str(word) in rows.get(row, "") for word in words):
            yield f"{row}: {words}, found {rows.get(row)}"


def missing_places(folder: Path, drawn: str) -> Iterator[str]:
    """Every file that a key finding names is there, with as many lines as it says."""
    section = drawn.partition("### Key Findings")[2].partition("\n### ")[0]
    named = re.findall(r"`([^` ]+\.(?:jsonl|npz|log)(?::\d+)?)`", section)
    if not named:
        yield "no finding names a file"
    for place in named:
        name, _, line = place.partition(":")
        path = folder / name
        if not path.is_file() or (line and len(path.read_bytes().splitlines()) < int(line)):
            yield place


def flags(snapshot: SweepSnapshot) -> dict[str, list[str]]:
    return {point.name: sorted(code for code, _ in point.anomalies) for point in snapshot.points if point.anomalies}
