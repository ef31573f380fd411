"""The rows of many workloads for the price of one listing; single ones are asked for only where the listing lacks them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from orchestrator.backends.runai import finding
from orchestrator.backends.runai.client import Client
from orchestrator.backends.runai.faults import Refused, Unauthorized
from orchestrator.backends.runai.listing import only, read_all
from orchestrator.backends.runai.words import WORKLOADS
from orchestrator.errors import BackendError

Row = dict[str, Any]
ASKED_SINGLY = 20
"""Workloads that a listing lacked and that one look asks for by their ids."""


class Rows:
    """Looks at workloads of one control plane, again and again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._filters_by_start = True
        self._asked_singly: Counter[str] = Counter()

    def of(self, project: str, names: Mapping[str, str]) -> dict[str, Row | None]:
        """Id -> row now, None where there positively is no such workload; what could not be seen is missing.

        Args:
            project: its id.
            names: id -> name of each workload; not empty.

        Raises:
            OrchestratorError: the listing could not be had.
        """
        listed = {str(row["id"]): row for row in self._listed(project, common_start(list(names.values())))}
        found: dict[str, Row | None] = {id_: listed[id_] for id_ in names if id_ in listed}
        missing = sorted(names.keys() - listed.keys(), key=lambda id_: (self._asked_singly[id_], id_))
        for id_ in missing[:ASKED_SINGLY]:
            self._asked_singly[id_] += 1
            try:
                found[id_] = finding.single(self._client, project, names[id_], id_)
            except Unauthorized:
                break
            except Refused:
                continue
            except BackendError:
                break  # who does not answer for one does not for the next
        return found

    def _listed(self, project: str, prefix: str) -> list[Row]:
        """The project's workloads whose names begin so; all of them where the server knows no such filter."""
        conditions = {"projectId": f"=={project}"}
        if prefix and self._filters_by_start:
            conditions["name"] = f"=^{prefix}"
        params = {"filterBy": only(**conditions), "deleted": "false", "sortBy": "createdAt", "sortOrder": "asc"}
        try:
            return read_all(self._client.get, WORKLOADS, "workloads", params)
        except Refused as error:
            if error.status != 400 or "name" not in conditions:
                raise
            self._filters_by_start = False
            return self._listed(project, prefix)


def common_start(names: list[str]) -> str:
    """What all of them begin with."""
    first, last = min(names), max(names)
    return next((first[:n] for n, char in enumerate(first) if last[n : n + 1] != char), first)
