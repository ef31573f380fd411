"""Sections of a report: each is a function from a snapshot to plain data, and a Jinja2 template that says it in Markdown.

A template is called after its section, `results.md.j2`. It sees the section's data by name, the whole sweep as
`snapshot`, and the functions that write Markdown and figures (`WRITERS`). A user's folder may hold others of the same
names; they win. What a template writes is stripped, more than one blank line in it becomes one, and a section that comes
out empty is left out.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import markdown, numbers
from reports.snapshot import SweepSnapshot

if TYPE_CHECKING:
    from jinja2 import Environment

BUILT_IN = Path(__file__).parent / "templates"
SUFFIX = ".md.j2"

WRITERS = {
    "code": markdown.code,
    "codes": markdown.codes,
    "text": markdown.text,
    "literal": markdown.literal,
    "table": markdown.table,
    "key_values": markdown.key_values,
    "plural": numbers.plural,
    "count": numbers.count,
    "seconds": numbers.seconds,
    "milliseconds": numbers.milliseconds,
    "gib": numbers.gib,
    "percent": numbers.percent,
    "duration": numbers.duration,
    "stamp": numbers.stamp,
    "day": numbers.day,
}
"""What a template may call, as a function or as a filter."""

_BLANK_LINES = re.compile(r"\n[ \t]*(?:\n[ \t]*)+\n")


class TemplateProblem(ValueError):
    """A template that cannot be used: which, where, and why."""


@dataclass(frozen=True)
class Section:
    """One part of the report."""

    name: str
    """Of its template, without the suffix."""
    module: str
    """Where its `context` is: SweepSnapshot -> names and values for the template, or None where it has nothing to say."""

    def context(self, snapshot: SweepSnapshot) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = importlib.import_module(self.module).context(snapshot)
        return found


def draw(snapshot: SweepSnapshot, sections: Sequence[Section], folders: Sequence[Path] = ()) -> str:
    """The sections in their order, a blank line between them.

    Args:
        folders: a user's own templates, the first wins.

    Raises:
        TemplateProblem: a template of the user's is called like no section, is not Jinja2, or asks for what is not there.
    """
    found = ((section, section.context(snapshot)) for section in sections)
    blocks = (draw_context(section, context, snapshot, folders) for section, context in found if context is not None)
    return "\n\n".join(block for block in blocks if block) + "\n"


def check_names(folders: Sequence[Path]) -> None:
    """A file that is called like no template of ours would be overlooked in silence.

    Raises:
        TemplateProblem: there is one, or a folder is none.
    """
    known = sorted(path.name for path in BUILT_IN.glob("*" + SUFFIX))
    for folder in folders:
        if not folder.is_dir():
            raise TemplateProblem(f"{folder}: no such folder of templates")
        for path in sorted(folder.glob("*.j2")):
            if path.name not in known:
                near = difflib.get_close_matches(path.name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"templates are {', '.join(known)}"
                raise TemplateProblem(f"{path}: the report has no such section; {hint}")


def draw_context(
    section: Section, context: Mapping[str, Any], snapshot: SweepSnapshot, folders: Sequence[Path] = ()
) -> str:
    """One section out of its data, without a blank line at either end; arguments and errors as of `draw`."""
    import jinja2

    try:
        drawn = _environment(tuple(folders)).get_template(section.name + SUFFIX).render(**context, snapshot=snapshot)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateProblem(f"{error.filename or error.name}, line {error.lineno}: {error.message}") from error
    except jinja2.TemplateNotFound as error:
        raise TemplateProblem(f"{section.name}{SUFFIX}: there is no template {error.name}") from error
    except jinja2.TemplateError as error:
        raise TemplateProblem(f"{_place(section, error)}: {error.message}") from error
    return _BLANK_LINES.sub("\n\n", drawn).strip("\n ")


def _place(section: Section, error: Exception) -> str:
    """The innermost line of a template that an error went through."""
    place, frame = section.name + SUFFIX, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename.endswith(SUFFIX):
            place = f"{frame.tb_frame.f_code.co_filename}, line {frame.tb_lineno}"
        frame = frame.tb_next
    return place


@functools.lru_cache(maxsize=8)
def _environment(folders: tuple[Path, ...]) -> Environment:
    """Sandboxed: a template is text, and should be able to do no more than that."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader([*folders, BUILT_IN]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown, not HTML: `text` and `code` escape what it needs
    )
    environment.globals.update(WRITERS)
    environment.filters.update(WRITERS)
    return environment
