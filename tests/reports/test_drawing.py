"""One's own templates: they win, and a mistake in them is told with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.drawing import BUILT_IN, SUFFIX, TemplateProblem
from reports.report import SECTIONS, render
from reports.snapshot import SweepSnapshot


def test_every_section_has_a_template_and_every_template_a_section() -> None:
    templates = {path.name for path in BUILT_IN.glob("*" + SUFFIX)}
    assert templates == {section.name + SUFFIX for section in SECTIONS} | {"compare" + SUFFIX}


def test_sections_come_in_their_order_with_one_blank_line_between(factor_sweep: SweepSnapshot) -> None:
    report = render(factor_sweep)
    headings = [line for line in report.splitlines() if line.startswith("### ")]
    assert headings[0] == "### Experiment Results"
    assert headings[-3:] == ["### Git", "### Provenance", "### Notes"]
    assert "\n\n\n" not in report
    assert not report.startswith("\n")
    assert report.endswith("\n")
    assert not report.endswith("\n\n")


def test_sections_can_be_drawn_alone(factor_sweep: SweepSnapshot) -> None:
    assert render(factor_sweep, only={"git"}).startswith("### Git\n")


def test_ones_own_template_wins_and_sees_the_sections_data_and_the_sweep(
    factor_sweep: SweepSnapshot, tmp_path: Path
) -> None:
    (tmp_path / "git.md.j2").write_text(
        "{{ snapshot.name }} ran {{ commit }}, {{ plural(3, 'file') }}, {{ 0.29 | seconds }} s"
    )
    report = render(factor_sweep, [tmp_path])
    assert "exclude-self-response ran `09115d0c3e`, 3 files, 0.29 s" in report
    assert "### Git" not in report
    assert "### Notes" in report, "the others stay"


def test_an_empty_template_leaves_its_section_out(factor_sweep: SweepSnapshot, tmp_path: Path) -> None:
    (tmp_path / "notes.md.j2").write_text("\n")
    assert render(factor_sweep, [tmp_path]).endswith("| torch | `2.13.0` |\n")


def test_a_template_may_build_on_the_built_in_one(factor_sweep: SweepSnapshot, tmp_path: Path) -> None:
    (tmp_path / "git.md.j2").write_text("### Code\n\n{{ key_values(('What', 'Which'), [('Commit', commit)]) }}\n")
    assert "### Code\n\n| What | Which |\n| --- | --- |\n| Commit | `09115d0c3e` |" in render(factor_sweep, [tmp_path])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ok\n{% if %}\n", r"git\.md\.j2, line 2: .*"),
        ("ok\n\n{{ commmit }}", r"git\.md\.j2, line 3: 'commmit' is undefined"),
        ("{{ snapshot.nmae }}", r"git\.md\.j2, line 1: .*no attribute 'nmae'"),
        ("{% include 'other.md.j2' %}", r"no template other\.md\.j2"),
        ("{{ snapshot.__class__.__mro__ }}", r"git\.md\.j2, line 1: access to attribute '__class__'"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(
    factor_sweep: SweepSnapshot, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "git.md.j2").write_text(text)
    with pytest.raises(TemplateProblem, match=message):
        render(factor_sweep, [tmp_path])


def test_a_file_that_is_called_like_no_section_is_not_overlooked(factor_sweep: SweepSnapshot, tmp_path: Path) -> None:
    (tmp_path / "resutls.md.j2").write_text("")
    with pytest.raises(TemplateProblem, match=r"resutls\.md\.j2: .* did you mean results\.md\.j2\?"):
        render(factor_sweep, [tmp_path])
    with pytest.raises(TemplateProblem, match="no such folder"):
        render(factor_sweep, [tmp_path / "nowhere"])
