"""What a sweep will need of Run:ai, looked at beforehand: for `doctor`. Changes nothing; the trial job is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchestrator.backends.base import Sign
from orchestrator.backends.runai import script
from orchestrator.backends.runai.backend import RunaiBackend
from orchestrator.backends.runai.directory import Cluster, NodePool, Project, Quota, clusters, node_pools
from orchestrator.backends.runai.logs import status_address
from orchestrator.backends.runai.token import V2
from orchestrator.errors import BackendError, OrchestratorError
from orchestrator.model import Pool
from orchestrator.suggest import did_you_mean


def look(backend: RunaiBackend, root: Path, pools: Sequence[Pool] = ()) -> Iterator[Sign]:
    """Credentials, project with its quota, cluster, node pools, storage, image, and the cluster's own endpoint.

    Args:
        root: the state folder.
        pools: that the sweep file names.
    """
    yield from _offline(backend, root)
    yield (token := _told("Run:ai credentials", lambda: _credentials(backend)))
    if not token.ok:
        return
    try:
        project = backend.project()
    except OrchestratorError as error:
        yield Sign("Run:ai project", False, str(error))
        return
    yield Sign("Run:ai project", True, _project(project))
    yield from _cluster(backend, project)
    yield from _pools(backend, project, pools)


def _offline(backend: RunaiBackend, root: Path) -> Iterator[Sign]:
    settings = backend.settings
    image = settings.image or "none: set RUNAI_IMAGE or runai.image to one with Python, verl and this package"
    yield Sign("Run:ai image", settings.image is not None, f"{image}, run with {settings.python}")
    yield _told("Run:ai storage", lambda: _storage(backend, root))


def _storage(backend: RunaiBackend, root: Path) -> str:
    inside = backend.settings.inside(root)
    script.argument(inside)
    where = "under the same path" if inside == root else f"as {inside}"
    mounts = backend.settings.mounts
    by = "a mount of the section `runai`" if mounts else "the image or the site: the section `runai` names no mounts"
    return f"containers see {root} {where}, by {by}; `--deep` tries it"


def _credentials(backend: RunaiBackend) -> str:
    form = backend.client.token().form
    said = "release 2.24 or later" if form == V2 else "a release before 2.24"
    return f"{backend.client.base_url} gave a token by {form} ({said})"


def _project(project: Project) -> str:
    def gpus(value: float | None) -> str:
        return "?" if value is None else "no limit" if value < 0 else f"{value:g}"

    def describe(quota: Quota) -> str:
        return f"{quota.pool or 'all pools'} {gpus(quota.deserved)} GPUs (at most {gpus(quota.limit)})"

    quotas = ", ".join(describe(quota) for quota in project.quotas) or "quota not shown to these credentials"
    return f"{project.name} (id {project.id}): {quotas}"


def _cluster(backend: RunaiBackend, project: Project) -> Iterator[Sign]:
    try:
        known = next((cluster for cluster in clusters(backend.client) if cluster.id == project.cluster), None)
    except BackendError as error:
        yield Sign("Run:ai cluster", False, str(error))
        return
    if known is None:
        yield Sign(
            "Run:ai cluster", False, f"cluster {project.cluster} of the project is not shown to these credentials"
        )
        return
    said = f"{known.name}, version {known.version or '?'}, {known.state or 'state not said'}"
    yield Sign("Run:ai cluster", known.state not in ("Disconnected", "Failed"), said)
    yield _endpoint(backend, known)


def _endpoint(backend: RunaiBackend, cluster: Cluster) -> Sign:
    check = "Run:ai cluster endpoint"
    if not cluster.domain:
        return Sign(check, True, "none is said: `logs` reads console.log, `logs --live` does not work")
    try:
        backend.client.content(status_address(cluster.domain))
    except BackendError:
        return Sign(
            check, True, f"{cluster.domain} is closed from here: `logs` reads console.log, `logs --live` does not work"
        )
    return Sign(check, True, f"{cluster.domain} answers: `logs --live` works while a workload lives")


def _pools(backend: RunaiBackend, project: Project, wanted: Sequence[Pool]) -> Iterator[Sign]:
    check = "Run:ai node pools"
    try:
        found = node_pools(backend.client, project.cluster)
    except BackendError as error:
        yield Sign(check, False, str(error))
        return

    def describe(pool: NodePool) -> str:
        gpus = (
            f"{pool.nodes} nodes of {pool.gpus} {pool.gpu}".strip() if pool.gpus else "nodes not shown, or without GPUs"
        )
        return f"{pool.name} ({gpus}{'' if pool.phase in ('', 'Ready') else f', {pool.phase}'})"

    yield Sign(check, bool(found), ", ".join(map(describe, found)) or "none are shown to these credentials")
    names = {pool.name for pool in found}
    for pool in wanted:
        name = str(pool.options.get("node_pool") or pool.name)
        if found and name not in names:
            hint = did_you_mean(name, sorted(names)) or f"it has {', '.join(sorted(names))}"
            said = f"the pool {pool.name} asks for the node pool {name!r}, which the cluster has not: {hint}"
            yield Sign(check, False, f"{said}; write node_pool: NAME below it")


def _told(check: str, found: Callable[[], str]) -> Sign:
    try:
        return Sign(check, True, found())
    except OrchestratorError as error:
        return Sign(check, False, str(error))
