"""Reads a report as GitHub does: a CommonMark parser with tables finds the headings, the tables, and the text of each cell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Table:
    """A table below its headings."""

    headings: tuple[str, ...]
    """From the report's title down to the nearest one."""
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Cells as they are written, Markdown and all."""
    above: str = ""
    """The paragraph before it."""

    @property
    def heading(self) -> str:
        return self.headings[-1] if self.headings else ""


def tables(report: str) -> list[Table]:
    """All tables of a report in their order."""
    return list(_tables(_PARSER.parse(report)))


def rows_below(report: str, heading: str) -> list[dict[str, str]]:
    """Title -> cell of each row of the first table below a heading that begins so; empty where there is none."""
    found = next((table for table in tables(report) if table.heading.startswith(heading)), None)
    return [dict(zip(found.titles, row, strict=True)) for row in found.rows] if found else []


def assert_github_reads_what_was_meant(report: str) -> None:
    """Every line that looks like a row is one, for a CommonMark parser with tables; each with as many cells as its head."""
    tokens = _PARSER.parse(report)
    rows = sum(token.type == "tr_open" for token in tokens)
    drawn = [line for line in report.splitlines() if line.startswith("| ")]
    assert rows == len(drawn) - sum(bool(re.fullmatch(r"\|( ---:? \|)+", line)) for line in drawn)
    for token in tokens:
        assert token.type != "html_block", token.content
        assert not any(child.type == "html_inline" for child in token.children or ()), token.content
    for found in tables(report):
        assert {len(row) for row in found.rows} == {len(found.titles)}


def _tables(tokens: list[Token]) -> Iterator[Table]:
    headings: dict[int, str] = {}
    rows: list[list[str]] = []
    above = ""
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            level = int(token.tag[1])
            headings = {known: words for known, words in headings.items() if known < level}
            headings[level] = tokens[place + 1].content
            above = ""
        elif token.type == "paragraph_open":
            above = tokens[place + 1].content
        elif token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(tokens[place + 1].content)
        elif token.type == "table_close":
            yield Table(tuple(headings.values()), tuple(rows[0]), tuple(map(tuple, rows[1:])), above)
            rows = []
