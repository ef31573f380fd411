"""GitHub-flavoured Markdown: tables whose cells may hold any text.

A table row is split at pipes before anything else is read, code spans included, and ends at the first line break; so
every cell goes through `text` or `code`. Footgun: parsers disagree about backslashes before a pipe (does the second of
two escape it?), hence such a run is written in character references.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_BLANKS = re.compile(r"[\s\x00-\x1f\x7f\x85\u2028\u2029]+")
_PIPE = re.compile(r"\\*\|")
_REFERENCES = {"&": "&amp;", "\\": "&#92;", "|": "&#124;"}
_MARKS = re.compile(r"[&\\|`*\[\]<>~!#]|(?<![a-zA-Z0-9])_|_(?![a-zA-Z0-9])")
_TAG_OPENING = re.compile(r"(?<!\\)<(?=[a-zA-Z/!?])")


@dataclass(frozen=True)
class Column:
    """One column: its cells are Markdown already."""

    title: str
    cells: Sequence[str]
    numeric: bool = False
    """Aligned to the right."""


def one_line(words: str) -> str:
    """Any text on one line: control characters, line breaks and runs of blanks become one space."""
    return _BLANKS.sub(" ", words).strip().encode(errors="replace").decode()


def text(words: str) -> str:
    """A line of prose, safe inside a table and outside. Markdown in it stays; HTML tags become visible."""
    return _PIPE.sub(_escaped_pipe, _TAG_OPENING.sub(r"\\<", one_line(words)))


def literal(words: str) -> str:
    """A line that a program wrote, as it is: `__init__` is no emphasis, and no address becomes a link or an image."""
    return _MARKS.sub(lambda found: _REFERENCES.get(found[0], "\\" + found[0]), one_line(words))


def code(words: str, *, in_table: bool = True) -> str:
    """A code span, safe inside a table, with a fence longer than any run of backticks in it. Empty for empty text.

    Args:
        in_table: elsewhere a reader would see the backslash that keeps a pipe from splitting the row.
    """
    line = one_line(words)
    if not line:
        return ""
    if in_table and r"\|" in line:  # no code span can hold it in every parser
        return text(line)
    fence = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line[0] == "`" or line[-1] == "`" else ""
    span = f"{fence}{pad}{line}{pad}{fence}"
    return span.replace("|", r"\|") if in_table else span


def codes(words: Iterable[str]) -> str:
    """Code spans, separated by commas."""
    return ", ".join(code(word) for word in words)


def table(columns: Sequence[Column]) -> str:
    """A table without the columns in which every cell is empty; an empty string when there are no rows.

    Raises:
        ValueError: columns of unequal length.
    """
    shown = [column for column in columns if any(column.cells)]
    if not shown:
        return ""
    rows = list(zip(*(column.cells for column in shown), strict=True))
    lines = [
        _row([column.title for column in shown]),
        _row(["---:" if column.numeric else "---" for column in shown]),
        *(_row(row) for row in rows),
    ]
    return "\n".join(lines)


def key_values(titles: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    """A table of two columns without the rows whose value is empty; an empty string when none is left."""
    kept = [(key, value) for key, value in rows if value]
    return table([Column(titles[0], [key for key, _ in kept]), Column(titles[1], [value for _, value in kept])])


def _escaped_pipe(run: re.Match[str]) -> str:
    backslashes = len(run[0]) - 1
    return "&#92;" * backslashes + "&#124;" if backslashes else r"\|"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
