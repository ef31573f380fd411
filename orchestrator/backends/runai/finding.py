"""Workloads by name: one whose id was never written down, and one that the listing lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.backends.runai.client import Client
from orchestrator.backends.runai.faults import NotFound
from orchestrator.backends.runai.listing import only, read_all
from orchestrator.backends.runai.words import WORKLOADS
from orchestrator.backends.runai.workload import Kind
from orchestrator.errors import BackendError, Unobservable
from trainer_ext.records import ENV_ATTEMPT_TOKEN


class NotOurs(BackendError):
    """Another attempt's workload has the name."""


def find(client: Client, project: str, name: str, kind: Kind, token: str) -> str | None:
    """The id of the workload of that name, or None where the project positively has none, nor had.

    Args:
        project: its id.

    Raises:
        NotOurs: another attempt's has the name.
        BackendError: Run:ai could not be asked.
    """
    for deleted in ("false", "true"):  # what lives first
        rows = _named(client, project, name, deleted)
        if rows:
            row = max(rows, key=lambda row: str(row.get("createdAt")))
            _check_token(client, row, kind, token)
            return str(row["id"])
    return None


def single(client: Client, project: str, name: str, id_: str) -> dict[str, Any] | None:
    """A workload that the listing lacks: it was deleted, or a page's boundary moved. None: there positively is none.

    Raises:
        BackendError: it could not be asked for.
    """
    try:
        row = client.get(f"{WORKLOADS}/{id_}")
        if not isinstance(row, dict):
            raise Unobservable(f"{name}: no workload in the answer")
        return row
    except NotFound:
        found = next((row for row in _named(client, project, name, "true") if str(row["id"]) == id_), None)
        return found if found is None or found.get("deletedAt") else {**found, "deletedAt": "unknown"}


def _named(client: Client, project: str, name: str, deleted: str) -> list[dict[str, Any]]:
    params = {"filterBy": only(name=f"=={name}", projectId=f"=={project}"), "deleted": deleted}
    return [row for row in read_all(client.get, WORKLOADS, "workloads", params) if row.get("name") == name]


def _check_token(client: Client, row: Mapping[str, Any], kind: Kind, token: str) -> None:
    """Refuse loudly what has our name and another's token."""
    variables = row.get("environmentVariables")
    if not isinstance(variables, Mapping) or ENV_ATTEMPT_TOKEN not in variables:
        variables = _variables(client, kind, str(row["id"]))
    if variables.get(ENV_ATTEMPT_TOKEN) not in (None, token):
        raise NotOurs(
            f"Run:ai's project has a workload {row.get('name')} that belongs to another attempt; delete it there"
        )


def _variables(client: Client, kind: Kind, id_: str) -> dict[str, Any]:
    """A workload's own environment, where lists do not show it; empty where it cannot be asked for."""
    try:
        answer = client.get(f"{kind.path}/{id_}")
    except BackendError:
        return {}
    spec = answer.get("spec") if isinstance(answer, Mapping) else None
    listed = spec.get("environmentVariables") if isinstance(spec, Mapping) else None
    items = listed if isinstance(listed, list) else []
    return {str(item.get("name")): item.get("value") for item in items if isinstance(item, Mapping)}
