"""The router of rollout requests."""

from __future__ import annotations

import subprocess
import sys

import pytest

from trainer_ext.routing import LeastBusyRouter


def test_requests_go_to_the_server_with_the_least_in_flight() -> None:
    router = LeastBusyRouter({"a": "A", "b": "B"}, {})
    assert [router.acquire_server(str(i))[0] for i in range(3)] == ["a", "b", "a"]
    router.release_server("a")
    router.release_server("a")
    assert router.acquire_server("3") == ("a", "A")
    assert router.get_total_inflight() == 2


def test_servers_come_and_go() -> None:
    router = LeastBusyRouter({}, {})
    with pytest.raises(RuntimeError, match="no rollout server"):
        router.acquire_server("0")
    router.add_servers({"a": "A"})
    router.acquire_server("1")
    router.remove_servers(["a"])
    assert router.get_all_servers() == []
    assert router.get_status()["total_inflight"] == 0


def test_the_router_and_the_class_of_the_handles_it_holds_import_nothing_heavy() -> None:
    script = "import sys, trainer_ext.routing, trainer_ext.rollout_server; print(*{n.partition('.')[0] for n in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "verl", "transformers", "numpy"} & set(loaded)
