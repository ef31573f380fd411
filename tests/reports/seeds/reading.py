"""Reads the tables of a report as a reader does: which cell stands in a job's row below a title, whichever way a table lies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    section: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(report: str) -> list[Table]:
    return [table for section in re.split(r"^### ", report, flags=re.MULTILINE) for table in _tables(section)]


def cells(report: str, row: str, title: str, section: str = "") -> list[str]:
    """Cells of a row below a title, or of a column beside it, in the tables of a section; of step 1 where rows have steps."""
    found = []
    for table in tables(report):
        if not table.section.startswith(section):
            continue
        titles, labels = [_plain(t) for t in table.titles], [_plain(r[0]) for r in table.rows]
        for words in table.rows:
            if _plain(words[0]) == row and title in titles and _is_first_step(titles, words):
                found.append(words[titles.index(title)])
        if row in titles:
            found += [r[titles.index(row)] for label, r in zip(labels, table.rows, strict=True) if label == title]
    return [cell for cell in found if cell]


def lines_with(report: str, words: list[str]) -> list[str]:
    """Lines that hold all of these, code marks aside where the words have none."""
    return [
        line
        for line in report.splitlines()
        if all(word in line or word in line.replace("`", "") for word in map(str, words))
    ]


def _tables(section: str) -> Iterator[Table]:
    title, _, body = section.partition("\n")
    block: list[tuple[str, ...]] = []
    for line in [*body.splitlines(), ""]:
        if line.startswith("| "):
            block.append(tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]))
        elif block:
            yield Table(title, block[0], tuple(block[2:]))
            block = []


def _plain(title: str) -> str:
    """Without code marks, a unit or steps in brackets behind it, and footnotes."""
    return re.sub(r" \([^)]*\)$", "", title.replace("`", "").strip(" †*\\"))


def _is_first_step(titles: list[str], row: tuple[str, ...]) -> bool:
    return "Step" not in titles or row[titles.index("Step")] in ("", "1")
