"""`report` as it is typed: its files, pages, templates, another base for the changes, and two sweeps side by side."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.backends.fake import Play, always
from orchestrator.cli import main
from tests.orchestrator.driving import Rehearsal

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with one finished sweep of two points, started from a repository of two commits."""
    folder = tmp_path_factory.mktemp("report")
    rehearsal = Rehearsal(folder / "runs", always(Play()))
    rehearsal.drive()
    git(folder, "init", "--quiet")
    for number in (1, 2):
        (folder / "train.py").write_text("line\n" * number)
        git(folder, "add", "train.py")
        git(folder, "commit", "--quiet", "--message", f"Version {number}")
    state = {"commit": git(folder, "rev-parse", "HEAD"), "branch": "main"}
    row = dataclasses.replace(rehearsal.store.sweep("s"), git=state, spec_path=str(folder / "s.yaml"))
    rehearsal.store.put_sweep(row, rehearsal.planned)
    return folder / "runs"


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "commit.gpgsign=false", *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **IDENTITY}
    ).stdout.strip()


def test_a_report_is_written_with_its_plots_and_tables(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "s", "--root", str(root)]) == 0
    folder = root / "sweeps" / "s"
    assert capsys.readouterr().out.strip() == str(folder / "report.md")
    report = (folder / "report.md").read_text()
    for link in ("report-points.csv", "report-attempts.csv"):
        assert (folder / link).read_text().startswith("job,point,")
    shown = [line.rpartition("(")[2].rstrip(")") for line in report.splitlines() if line.startswith("![")]
    assert shown
    assert all((folder / image).stat().st_size > 1_000 for image in shown)
    assert not (folder / "report.html").exists()


def test_the_page_holds_the_same_report(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--html", "--root", str(root)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == root / "sweeps" / "s" / "report.html"
    assert "Experiment Results" in page.read_text()


def test_a_page_that_is_there_never_says_what_an_earlier_report_said(root: Path) -> None:
    page = root / "sweeps" / "s" / "report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    try:
        page.write_text("of an earlier report")
        assert main(["report", "s", "--root", str(root)]) == 0
        assert "Experiment Results" in page.read_text()
    finally:
        page.unlink()


def test_what_is_printed_is_what_would_be_written(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--root", str(root)]) == 0
    written = Path(capsys.readouterr().out.strip()).read_text()
    assert main(["report", "--stdout", "--root", str(root)]) == 0
    assert capsys.readouterr().out == written


def test_changes_can_be_shown_since_any_commit(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--stdout", "--base", "HEAD~1", "--root", str(root)]) == 0
    said = capsys.readouterr().out
    assert "1 file in 1 commit" in said
    assert "| `train.py` | modified | +1 −0 | Version 2 |" in said


def test_a_base_that_git_does_not_know_is_an_error(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--base", "nowhere", "--root", str(root)]) == 2
    assert "does not know both nowhere and " in capsys.readouterr().err


def test_templates_of_the_state_folder_are_taken_and_those_that_are_named_win(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = root / "templates"
    own.mkdir()
    try:
        (own / "git.md.j2").write_text("### Ours {{ commit }}")
        assert main(["report", "--stdout", "--root", str(root)]) == 0
        assert "### Ours `" in capsys.readouterr().out
        (tmp_path / "git.md.j2").write_text("### Mine")
        assert main(["report", "--stdout", "--templates", str(tmp_path), "--root", str(root)]) == 0
        said = capsys.readouterr().out
        assert "### Mine" in said
        assert "### Ours" not in said
        (own / "git.md.j2").write_text("{{ commmit }}")
        assert main(["report", "--root", str(root)]) == 2
        assert "git.md.j2, line 1: 'commmit' is undefined" in capsys.readouterr().err
    finally:
        (own / "git.md.j2").unlink()
        own.rmdir()


def test_two_sweeps_are_set_side_by_side(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--compare", "s", "s", "--html", "--root", str(root)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page.name == "against-s.html"
    report = page.with_suffix(".md").read_text()
    assert "2 points of both sweeps have the same parameters" in report
    assert "the same commit" in report
    assert page.with_suffix(".csv").read_text().startswith("figure,x,replicates,a,b,difference")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare", "s", "other"], "no sweep named 'other'"),
        (["s", "--compare", "s", "s"], "--compare A B names both sweeps"),
        (["--templates", "nowhere"], "nowhere: no such folder of templates"),
    ],
)
def test_a_mistake_is_said_plainly(
    root: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["report", *words, "--root", str(root)]) == 2
    assert message in capsys.readouterr().err
