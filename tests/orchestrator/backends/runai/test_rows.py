"""Rows by one listing, and by single looks where it lacks some."""

from __future__ import annotations

import httpx

from orchestrator.backends.runai.client import Client
from orchestrator.backends.runai.rows import ASKED_SINGLY, Rows, common_start
from orchestrator.backends.runai.settings import Credentials
from orchestrator.backends.runai.token import V2
from orchestrator.clock import FakeClock


class Server:
    """Lists nothing; answers for single workloads as `status` says by id, 200 otherwise."""

    def __init__(self, status: dict[str, int] | None = None) -> None:
        self.status, self.asked = status or {}, []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == V2:
            return httpx.Response(200, json={"access_token": "jwt-1", "expires_in": 3600})
        if path.endswith("/workloads"):
            return httpx.Response(200, json={"workloads": []})
        id_ = path.rpartition("/")[2]
        self.asked.append(id_)
        status = self.status.get(id_, 200)
        return httpx.Response(status, json={"id": id_} if status == 200 else {"code": status, "message": "no"})

    def rows(self) -> Rows:
        account = Credentials("a", "secret")
        return Rows(Client("http://runai.test", lambda: account, FakeClock(), transport=httpx.MockTransport(self)))


NAMES = {f"id-{n}": f"s-{n:010}-1" for n in range(50)}


def test_all_that_a_listing_lacks_gets_its_turn() -> None:
    server = Server()
    rows, seen = server.rows(), set()
    for _ in range(3):
        found = rows.of("4501", NAMES)
        assert len(found) == ASKED_SINGLY
        seen |= found.keys()
    assert seen == NAMES.keys()


def test_a_server_in_trouble_is_not_asked_about_every_job() -> None:
    server = Server(dict.fromkeys(NAMES, 503))
    rows = server.rows()
    assert rows.of("4501", NAMES) == {}
    assert len(set(server.asked)) == 1
    rows.of("4501", NAMES)
    assert len(set(server.asked)) == 2, "another one the next time"


def test_a_job_that_may_not_be_looked_at_keeps_nobody_from_the_others() -> None:
    server = Server({"id-7": 403, "id-8": 404})
    found = server.rows().of("4501", dict(list(NAMES.items())[:10]))
    assert found.keys() == {f"id-{n}" for n in range(10)} - {"id-7"}
    assert found["id-8"] is None, "neither among the living nor among the deleted"


def test_what_names_have_in_common_is_what_the_listing_is_filtered_by() -> None:
    assert common_start(["s-1-1", "s-1-2", "s-20-1"]) == "s-"
    assert common_start(["one"]) == "one"
    assert common_start(["a", "b"]) == ""
    assert common_start(["ab", "abc"]) == "ab"
