"""Pages whose boundaries move between two requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.backends.runai.listing import MOST_PAGES, only, read_all
from orchestrator.errors import Unobservable

PATH = "/api/v1/workloads"


class Changing:
    """A collection that loses and gains items between two pages.

    Args:
        changes: before each page but the first, (positions to remove, number to append).
    """

    def __init__(
        self, size: int, changes: list[tuple[list[int], int]], *, says_next: bool = True, cap: int = 500
    ) -> None:
        self.items = [f"w{n}" for n in range(size)]
        self.lasting = set(self.items)
        self.changes, self.says_next, self.cap = changes, says_next, cap
        self.pages = 0

    def get(self, path: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
        assert path == PATH
        if self.pages and self.changes:
            removed, added = self.changes.pop(0)
            for position in sorted({place % len(self.items) for place in removed} if self.items else (), reverse=True):
                self.lasting.discard(self.items.pop(position))
            self.items += [f"new{self.pages}-{n}" for n in range(added)]
        self.pages += 1
        offset, limit = int((params or {})["offset"]), min(int((params or {})["limit"]), self.cap)
        page = self.items[offset : offset + limit]
        more = offset + limit < len(self.items)
        return {
            "workloads": [{"id": name} for name in page],
            **({"next": offset + limit} if more and self.says_next else {}),
        }


@given(
    size=st.integers(0, 60),
    page=st.integers(5, 20),
    changes=st.lists(st.tuples(st.lists(st.integers(0, 100), max_size=2), st.integers(0, 3)), max_size=12),
    says_next=st.booleans(),
)
def test_what_is_there_all_the_time_is_seen_while_no_more_goes_away_than_pages_overlap(size, page, changes, says_next):
    collection = Changing(size, changes, says_next=says_next)
    found = [row["id"] for row in read_all(collection.get, PATH, "workloads", page=page, overlap=2)]
    assert collection.lasting <= set(found)
    assert len(found) == len(set(found))


def test_one_page_is_one_request() -> None:
    collection = Changing(40, [])
    assert len(read_all(collection.get, PATH, "workloads")) == 40
    assert collection.pages == 1


def test_a_server_that_gives_shorter_pages_than_asked_is_followed_by_its_next() -> None:
    collection = Changing(120, [], cap=50)
    assert len(read_all(collection.get, PATH, "workloads")) == 120


def test_a_server_that_ignores_offsets_does_not_keep_us_for_ever() -> None:
    asked = []

    def get(path: str, params: Mapping[str, Any] | None) -> Any:
        asked.append((path, params))
        return {"workloads": [{"id": str(n)} for n in range(500)], "next": 500}

    assert len(read_all(get, PATH, "workloads")) == 500
    assert len(asked) <= 2 < MOST_PAGES


def test_an_answer_of_another_form_is_no_observation() -> None:
    with pytest.raises(Unobservable, match="no list of workloads"):
        read_all(lambda *_: {"workloads": "none"}, PATH, "workloads")
    assert read_all(lambda *_: {}, PATH, "workloads") == []
    assert read_all(lambda *_: [{"id": 1}, "x", {}], PATH, "clusters") == [{"id": 1}]


def test_filters_are_joined_and_leave_out_what_cannot_be_asked_for() -> None:
    assert only(name="==a", projectId="==7") == "name==a,projectId==7"
    assert only(name="==a,b", projectId="==7") == "projectId==7"
