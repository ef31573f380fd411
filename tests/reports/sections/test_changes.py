from __future__ import annotations

import dataclasses

from reports.report import render
from reports.sections.changes import MOST_COMMITS, MOST_FILES
from reports.snapshot import ChangesSnapshot, CommitSnapshot, FileChange, GitState, SweepSnapshot
from tests.reports.reading import rows_below

BASE, HEAD = "a" * 40, "b" * 40


def changes(found: ChangesSnapshot | None, **more: object) -> str:
    return render(SweepSnapshot("s", changes=found, **more), only={"changes"})  # type: ignore[arg-type]


def test_files_stand_with_their_lines_and_the_subjects_of_their_commits() -> None:
    files = (
        FileChange("solve.py", "modified", 1_200, 30, ("Solve | faster", "Fix")),
        FileChange("weights.bin", "added", None, None, ("Weights",)),
    )
    commits = (CommitSnapshot("1" * 40, "Solve | faster"), CommitSnapshot("2" * 40, "Fix"))
    report = changes(ChangesSnapshot(BASE, HEAD, "before", commits, files))
    assert "From `aaaaaaaaaa` (sweep `before`) to `bbbbbbbbbb`: 2 files in 2 commits." in report
    assert rows_below(report, "Changes") == [
        {"Path": "`solve.py`", "Change": "modified", "Lines": "+1,200 −30", "Commits": "Solve | faster; Fix"},
        {"Path": "`weights.bin`", "Change": "added", "Lines": "binary", "Commits": "Weights"},
    ]
    assert "- `2222222222` Fix" in report


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert changes(None).strip() == ""


def test_the_same_commit_is_said_in_one_line() -> None:
    report = changes(ChangesSnapshot(BASE, BASE, "before"))
    assert report == "### Changes\n\nFrom `aaaaaaaaaa` (sweep `before`) to `aaaaaaaaaa`: the same commit.\n"


def test_uncommitted_changes_are_mentioned() -> None:
    report = changes(ChangesSnapshot(BASE, BASE), git=GitState(BASE, dirty=True))
    assert "the same commit; uncommitted changes come on top (see Git)." in report


def test_of_many_files_those_that_changed_most_are_shown_by_path() -> None:
    files = tuple(FileChange(f"{n:03}.py", "modified", n, 0) for n in range(100))
    commits = tuple(CommitSnapshot(f"{n:040}", f"Commit {n}") for n in range(30))
    found = ChangesSnapshot(BASE, HEAD, None, commits, files)
    report = changes(dataclasses.replace(found, more_files=7, more_commits=5))
    shown = [row["Path"] for row in rows_below(report, "Changes")]
    assert shown == [f"`{n:03}.py`" for n in range(100 - MOST_FILES, 100)]
    assert "107 files in 35 commits" in report
    assert f"And {107 - MOST_FILES} files with fewer lines." in report
    assert f"- and {35 - MOST_COMMITS} earlier commits" in report
    assert "Commit 29" in report
    assert "Commit 3\n" not in report
