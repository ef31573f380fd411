"""Reading a collection page by page while it changes.

Pages are cut by offset. What is deleted before the boundary moves everything after it, and a naive reader then skips as many
items as went away. Each page therefore begins some items before the end of the last one, and what was seen twice counts
once. Should more go away between two pages, an item can still be missed: whoever misses one asks for it by its id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.errors import Unobservable

PAGE = 500
"""Items; the API takes 1 to 500."""
OVERLAP = 20
MOST_PAGES = 200

Get = Callable[[str, Mapping[str, Any] | None], Any]
"""(path, parameters) -> the parsed answer."""


def read_all(
    get: Get,
    path: str,
    key: str,
    params: Mapping[str, Any] | None = None,
    *,
    page: int = PAGE,
    overlap: int = OVERLAP,
) -> list[dict[str, Any]]:
    """Every item once, in the order of the first sight.

    Args:
        key: the field of the answer that holds the items; each has an `id`.

    Raises:
        Unobservable: an answer has not that form.
        BackendError: as `get` does.
    """
    found: dict[str, dict[str, Any]] = {}
    offset = 0
    for _ in range(MOST_PAGES):
        answer = get(path, {**(params or {}), "limit": page, "offset": offset})
        items = items_of(answer, key, path)
        new = {str(item["id"]): item for item in items if str(item["id"]) not in found}
        found |= new
        more = answer.get("next") if isinstance(answer, Mapping) else None
        if not items or not new or (not more and len(items) < page):
            break
        offset += max(1, len(items) - min(overlap, len(items) // 2))
    return list(found.values())


def items_of(answer: Any, key: str, path: str) -> list[dict[str, Any]]:
    """The items of an answer that is a list, or has one in `key`."""
    items = answer.get(key) if isinstance(answer, Mapping) else answer
    if items is None and isinstance(answer, Mapping):
        items = []
    if not isinstance(items, list):
        raise Unobservable(f"GET {path}: no list of {key} in the answer")
    return [item for item in items if isinstance(item, dict) and item.get("id") is not None]


def only(**fields: str) -> str:
    """A filter for `filterBy`: each `field="==value"`, all of them. Values with commas cannot be asked for."""
    return ",".join(f"{name}{condition}" for name, condition in fields.items() if "," not in condition)
