"""Filters, order and pages of lists, as the API documents them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LIMIT, MAX_LIMIT = 50, 500
OPERATORS: dict[str, Callable[[Any, str], bool]] = {
    "==": lambda value, wanted: _text(value) == wanted,
    "!=": lambda value, wanted: _text(value) != wanted,
    "<=": lambda value, wanted: _text(value) <= wanted,
    ">=": lambda value, wanted: _text(value) >= wanted,
    "=@": lambda value, wanted: wanted in _text(value),
    "!@": lambda value, wanted: wanted not in _text(value),
    "=^": lambda value, wanted: _text(value).startswith(wanted),
    "=$": lambda value, wanted: _text(value).endswith(wanted),
}
FILTER = re.compile(rf"(\w+)({'|'.join(map(re.escape, OPERATORS))})(.*)")


class BadQuery(Exception):
    """The query asks for what cannot be."""


@dataclass(frozen=True)
class Page:
    items: list[dict[str, Any]]
    next: int | None
    """Offset of the next page; None on the last one."""


def page(
    rows: Sequence[dict[str, Any]],
    query: Mapping[str, str],
    fields: Mapping[str, str],
    ignored: Sequence[str] = (),
) -> Page:
    """One page of rows.

    Args:
        rows: in the order in which they were made.
        fields: name in a query -> key in a row.
        ignored: operators that filter nothing.
    """
    chosen = [row for row in rows if all(test(row) for test in _filters(query.get("filterBy"), fields, ignored))]
    by = query.get("sortBy")
    if by is not None:
        if by not in fields:
            raise BadQuery(f"cannot sort by {by}")
        chosen.sort(key=lambda row: _text(row.get(fields[by])), reverse=query.get("sortOrder") == "desc")
    limit, offset = _number(query, "limit", LIMIT), _number(query, "offset", 0)
    if not 1 <= limit <= MAX_LIMIT:
        raise BadQuery(f"limit must be between 1 and {MAX_LIMIT}")
    end = offset + limit
    return Page(chosen[offset:end], end if end < len(chosen) else None)


def _filters(
    text: str | None, fields: Mapping[str, str], ignored: Sequence[str]
) -> list[Callable[[Mapping[str, Any]], bool]]:
    """Filters are joined by commas, so that no value can have one."""
    return [_filter(part, fields, ignored) for part in (text or "").split(",") if part]


def _filter(part: str, fields: Mapping[str, str], ignored: Sequence[str]) -> Callable[[Mapping[str, Any]], bool]:
    match = FILTER.fullmatch(part)
    if match is None or match[1] not in fields:
        raise BadQuery(f"cannot filter by {part}")
    if match[2] in ignored:
        return lambda _row: True
    key, holds, wanted = fields[match[1]], OPERATORS[match[2]], match[3]
    return lambda row: holds(row.get(key), wanted)


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(query.get(name, default))
    except ValueError:
        raise BadQuery(f"{name} must be a number") from None


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)
