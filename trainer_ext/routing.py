"""Routes rollout requests to the server with the least in flight; `routing.yaml` beside it is what verl is given.

verl's own router does this and keeps conversations on one server besides. Its process imports all of verl for that: half a GB,
and seconds of a small job's start. This one imports nothing, and lives outside `verl_plugin` for that reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


class LeastBusyRouter:
    """A Ray actor with the methods of `verl.workers.rollout.router.RequestLoadBalancer`."""

    def __init__(self, servers: Mapping[str, Any], config: Mapping[str, Any]) -> None:  # noqa: ARG002  # verl passes both
        self._servers = dict(servers)
        self._in_flight: Counter[str] = Counter()

    def acquire_server(self, request_id: str, **_: Any) -> tuple[str, Any]:
        """(name, handle) of the least busy server; the earliest added of equals."""
        if not self._servers:
            raise RuntimeError(f"no rollout server for request {request_id}")
        name = min(self._servers, key=lambda server: self._in_flight[server])
        self._in_flight[name] += 1
        return name, self._servers[name]

    def release_server(self, server_id: str, request_id: str | None = None) -> None:  # noqa: ARG002
        self._in_flight[server_id] = max(0, self._in_flight[server_id] - 1)

    def add_servers(self, servers: Mapping[str, Any]) -> None:
        self._servers.update(servers)

    def remove_servers(self, server_ids: Iterable[str]) -> None:
        for name in server_ids:
            self._servers.pop(name, None)
            del self._in_flight[name]

    def require_acquire_fields(self) -> list[str]:
        return []

    def require_release_fields(self) -> list[str]:
        return []

    def get_all_servers(self) -> list[str]:
        return list(self._servers)

    def get_total_inflight(self) -> int:
        return self._in_flight.total()

    def get_status(self) -> dict[str, Any]:
        return {
            "servers": dict(self._in_flight),
            "total_inflight": self._in_flight.total(),
            "active_servers": len(self._servers),
        }

    def clear_sticky_cache(self) -> dict[str, Any]:
        return {"cleared_entries": 0, "server_loads": dict(self._in_flight)}
