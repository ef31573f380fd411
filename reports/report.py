"""`report.md` of a sweep: its sections in reading order.

A section about which the snapshot knows nothing is left out. The same snapshot gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from reports.drawing import Section, check_names, draw
from reports.snapshot import SweepSnapshot

SECTIONS: tuple[Section, ...] = (
    Section("header", "reports.sections.header"),
    Section("changes", "reports.sections.changes"),
    Section("results", "reports.sections.results"),
    Section("scores", "reports.sections.scores"),
    Section("timing", "reports.sections.timing"),
    Section("scaling", "reports.scaling"),
    Section("resources", "reports.sections.resources"),
    Section("attempts", "reports.sections.attempts"),
    Section("findings", "reports.findings.section"),
    Section("search", "reports.sections.search"),
    Section("similarity", "reports.similarity"),
    Section("vhack", "reports.sections.vhack"),
    Section("validation", "reports.sections.validation"),
    Section("statistics", "reports.statistics"),
    Section("plots", "reports.plots.section"),
    Section("git", "reports.sections.git"),
    Section("provenance", "reports.sections.provenance"),
    Section("notes", "reports.sections.notes"),
)


def render(snapshot: SweepSnapshot, templates: Sequence[Path] = (), only: Collection[str] | None = None) -> str:
    """The report as GitHub-flavoured Markdown.

    Args:
        templates: folders with a user's own templates, `<section>.md.j2`; the first that has one wins.
        only: names of the sections to draw; None: all.

    Raises:
        reports.drawing.TemplateProblem: one of the user's templates cannot be used.
    """
    check_names(templates)
    wanted = [section for section in SECTIONS if only is None or section.name in only]
    return draw(snapshot, wanted, templates)
