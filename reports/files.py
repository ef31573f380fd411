"""Everything that a report consists of, in one folder: `report.md`, two tables in CSV, plots, and `report.html`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports import appendix
from reports.html import to_html
from reports.plots.draw import draw
from reports.plots.section import FOLDER
from reports.report import render
from reports.snapshot import SweepSnapshot
from trainer_ext.records import write_atomic


def write_files(snapshot: SweepSnapshot, path: Path, templates: Sequence[Path] = (), *, html: bool = False) -> Path:
    """Each file whole or not at all; the same snapshot gives the same bytes. A page that is there already is drawn again, so
    that it never says something else than the Markdown beside it.

    Args:
        path: of the Markdown; the others stand beside it.
        templates: folders of a user's own templates.

    Raises:
        TemplateProblem: a template cannot be used; nothing is written then.
        OSError: the folder cannot be written.
    """
    report = render(snapshot, templates)
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, report)
    write_atomic(folder / appendix.POINTS, appendix.points_csv(snapshot))
    write_atomic(folder / appendix.ATTEMPTS, appendix.attempts_csv(snapshot))
    draw(snapshot, folder / FOLDER)
    if html or path.with_suffix(".html").exists():
        write_atomic(path.with_suffix(".html"), to_html(report, folder))
    return path
