from __future__ import annotations

from pathlib import Path

from orchestrator.backends.fake import Play, always
from orchestrator.reporting import write_report
from tests.orchestrator.driving import Rehearsal


def drawn(tmp_path: Path, template: str | None) -> tuple[str, list[str]]:
    """The report of one finished point, and what was said."""
    rehearsal = Rehearsal(tmp_path, always(Play()), points=1)
    rehearsal.drive()
    if template is not None:
        rehearsal.paths.templates.mkdir()
        (rehearsal.paths.templates / "validation.md.j2").write_text(template)
    said: list[str] = []
    return write_report(rehearsal.store, rehearsal.paths, "s", said.append).read_text(), said


def test_the_state_folders_own_templates_are_taken(tmp_path: Path) -> None:
    report, said = drawn(tmp_path, "{{ checks | length }} checks, all of them mine")
    assert "checks, all of them mine" in report
    assert said == []


def test_a_sweep_that_is_done_has_a_report_whatever_its_templates_are(tmp_path: Path) -> None:
    report, said = drawn(tmp_path, "{{ chekcs }}")
    assert "### Validation\n\n| Check |" in report
    (words,) = said
    assert "validation.md.j2, line 1: 'chekcs' is undefined; the report is drawn with the built-in templates" in words
