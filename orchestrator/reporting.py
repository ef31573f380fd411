"""A sweep's report out of the store, into the sweep's folder; the same store gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.paths import RootPaths
from orchestrator.snapshot import sweep_snapshot
from orchestrator.store import Store
from reports.drawing import TemplateProblem
from reports.files import write_files
from reports.report import render
from reports.snapshot import SweepSnapshot


def write_report(store: Store, paths: RootPaths, sweep: str) -> Path:
    """Draw a sweep's report with the state folder's own templates, if there are any; returns the path of `report.md`.

    Raises:
        UsageError: one of these templates cannot be used; nothing is written then.
        OSError: the folder cannot be written.
    """
    return write_snapshot(sweep_snapshot(store, paths, sweep), paths.report(sweep), own_templates(paths))


def own_templates(paths: RootPaths) -> list[Path]:
    """The state folder's own templates; none where it has no such folder."""
    return [paths.templates] if paths.templates.is_dir() else []


def draw_report(snapshot: SweepSnapshot, templates: Sequence[Path]) -> str:
    """The Markdown.

    Raises:
        UsageError: a template cannot be used.
    """
    with _said_plainly():
        return render(snapshot, templates)


def write_snapshot(snapshot: SweepSnapshot, path: Path, templates: Sequence[Path], *, html: bool = False) -> Path:
    """Everything that a report consists of; returns `path`, its Markdown.

    Raises:
        UsageError: a template cannot be used; nothing is written then.
        OSError: the folder cannot be written.
    """
    with _said_plainly():
        write_files(snapshot, path, templates, html=html)
    return path


@contextmanager
def _said_plainly() -> Iterator[None]:
    """A mistake in a template is the user's to read."""
    try:
        yield
    except TemplateProblem as error:
        raise UsageError(str(error)) from error
