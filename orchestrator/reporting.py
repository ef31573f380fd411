"""The files of a report in the sweep's folder: `report.md`, plots, two tables in CSV, and where it is asked for `report.html`.

All are drawn from the store; the same store gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.paths import RootPaths
from orchestrator.snapshot import sweep_snapshot
from orchestrator.store import Store
from reports.drawing import TemplateProblem
from reports.report import render
from reports.snapshot import SweepSnapshot


def write_report(store: Store, paths: RootPaths, sweep: str, *, html: bool = False) -> Path:
    """Draw a sweep's report with the state folder's own templates, if there are any; returns the path of `report.md`.

    Raises:
        UsageError: one of these templates cannot be used.
    """
    return write_files(sweep_snapshot(store, paths, sweep), paths.report(sweep), own_templates(paths), html=html)


def own_templates(paths: RootPaths) -> list[Path]:
    """The state folder's own templates; none where it has no such folder."""
    return [paths.templates] if paths.templates.is_dir() else []


def draw_report(snapshot: SweepSnapshot, templates: Sequence[Path]) -> str:
    """The Markdown.

    Raises:
        UsageError: a template cannot be used.
    """
    try:
        return render(snapshot, templates)
    except TemplateProblem as error:
        raise UsageError(str(error)) from error


def write_files(snapshot: SweepSnapshot, path: Path, templates: Sequence[Path] = (), *, html: bool = False) -> Path:
    """Everything that a report consists of, `path` being its Markdown.

    Raises:
        UsageError: a template cannot be used; nothing is written then.
        OSError: the folder cannot be written.
    """
    from reports import files

    try:
        return files.write_files(snapshot, path, templates, html=html)
    except TemplateProblem as error:
        raise UsageError(str(error)) from error
