"""A sweep's report out of the store, into the sweep's folder; the same store gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.paths import RootPaths
from orchestrator.snapshot import sweep_snapshot
from orchestrator.store import Store
from reports.compare import report as comparison
from reports.compare.report import Compared
from reports.drawing import TemplateProblem
from reports.files import write_files
from reports.html import to_html
from reports.report import render
from reports.snapshot import SweepSnapshot
from trainer_ext.records import write_atomic


def write_report(store: Store, paths: RootPaths, sweep: str, said: Callable[[str], None]) -> Path:
    """Draw a sweep's report with the state folder's own templates, if there are any; returns the path of `report.md`.

    Args:
        said: told where one of these templates cannot be used: the built-in ones are taken then, for the sweep is done.

    Raises:
        OSError: the folder cannot be written.
    """
    snapshot, path = sweep_snapshot(store, paths, sweep), paths.report(sweep)
    try:
        return write_snapshot(snapshot, path, own_templates(paths))
    except UsageError as error:
        said(f"{error}; the report is drawn with the built-in templates")
        return write_snapshot(snapshot, path, ())


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


def draw_comparison(compared: Compared, templates: Sequence[Path]) -> str:
    """The Markdown.

    Raises:
        UsageError: a template cannot be used.
    """
    with _said_plainly():
        return comparison.render(compared, templates)


def write_comparison(compared: Compared, path: Path, templates: Sequence[Path], *, html: bool = False) -> Path:
    """`path`, its Markdown, with a CSV file and where it is asked for a page beside it.

    Raises:
        UsageError: a template cannot be used; nothing is written then.
        OSError: the folder cannot be written.
    """
    drawn = draw_comparison(compared, templates)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, drawn)
    write_atomic(path.with_suffix(".csv"), comparison.to_csv(compared))
    if html or path.with_suffix(".html").exists():
        write_atomic(path.with_suffix(".html"), to_html(drawn, path.parent))
    return path


@contextmanager
def _said_plainly() -> Iterator[None]:
    """A mistake in a template is the user's to read."""
    try:
        yield
    except TemplateProblem as error:
        raise UsageError(str(error)) from error
