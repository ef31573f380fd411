"""Project, cluster and node pools: what a user writes as names, Run:ai wants as ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.backends.runai.client import Client
from orchestrator.backends.runai.faults import Refused
from orchestrator.backends.runai.listing import items_of, only, read_all
from orchestrator.errors import UsageError
from orchestrator.suggest import did_you_mean

PROJECTS, CLUSTERS = "/api/v1/org-unit/projects", "/api/v1/clusters"
NODE_POOLS, NODES = "/api/v1/node-pools", "/api/v1/nodes"


@dataclass(frozen=True)
class Quota:
    """GPUs of a project in one node pool."""

    pool: str
    deserved: float | None
    """Guaranteed; None: not said."""
    limit: float | None


@dataclass(frozen=True)
class Project:
    id: str
    name: str
    cluster: str
    """Its id."""
    quotas: tuple[Quota, ...] = ()
    default_pools: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cluster:
    id: str
    name: str
    domain: str
    version: str
    state: str


@dataclass(frozen=True)
class NodePool:
    name: str
    is_default: bool
    phase: str
    nodes: int = 0
    gpus: int = 0
    """Of one node, the fewest."""
    gpu: str = ""


def find_project(client: Client, name: str | None, cluster: str | None) -> Project:
    """The project of that name, or the only one there is.

    Args:
        cluster: name or id; needed only where two clusters have such a project.

    Raises:
        UsageError: none, or several.
        BackendError: it could not be asked for.
    """
    params = {"filterBy": only(name=f"=={name}")} if name and "," not in name else {}
    found = [_project(item) for item in read_all(client.get, PROJECTS, "projects", params)]
    found = [project for project in found if name in (None, project.name)]
    if cluster is not None:
        wanted = find_cluster(client, cluster).id
        found = [project for project in found if project.cluster == wanted]
    if len(found) == 1:
        return found[0]
    if not found and name:
        names = [str(item.get("name")) for item in read_all(client.get, PROJECTS, "projects")]
        known = did_you_mean(name, names) or f"these credentials see {', '.join(sorted(names)) or 'none'}"
        raise UsageError(f"Run:ai has no project {name!r}: {known}; it is RUNAI_PROJECT or runai.project")
    if not found:
        raise UsageError("these credentials see no project of Run:ai; the service account needs a role in one")
    if name:
        raise UsageError(f"several clusters have a project {name!r}; name one with RUNAI_CLUSTER or runai.cluster")
    names = sorted(project.name for project in found)
    raise UsageError(f"which project of Run:ai? set RUNAI_PROJECT or runai.project to one of {', '.join(names)}")


def is_shown(client: Client, project: Project) -> bool:
    """Whether these credentials still see the project: without their role in it, all its workloads look gone.

    Raises:
        BackendError: it could not be asked for.
    """
    params = {"filterBy": only(name=f"=={project.name}")}
    return any(str(item["id"]) == project.id for item in read_all(client.get, PROJECTS, "projects", params))


def clusters(client: Client) -> list[Cluster]:
    return [_cluster(item) for item in _plain(client.get(CLUSTERS), "clusters")]


def find_cluster(client: Client, name_or_id: str) -> Cluster:
    """One of the clusters.

    Raises:
        UsageError: there is none of that name.
        BackendError: it could not be asked for.
    """
    known = clusters(client)
    for cluster in known:
        if name_or_id in (cluster.id, cluster.name):
            return cluster
    names = [cluster.name for cluster in known]
    hint = did_you_mean(name_or_id, names) or f"there are {', '.join(names) or 'none'}"
    raise UsageError(f"Run:ai has no cluster {name_or_id!r}: {hint}")


def node_pools(client: Client, cluster: str) -> list[NodePool]:
    """The pools of a cluster, the default one first, with what their nodes have as far as these credentials may see that.

    Args:
        cluster: its id.
    """
    pools = [item for item in _plain(client.get(NODE_POOLS), "nodepools") if item.get("clusterId") == cluster]
    nodes = _nodes(client, cluster)
    found = [_pool(item, [node for node in nodes if node.get("nodePool") == item.get("name")]) for item in pools]
    return sorted(found, key=lambda pool: not pool.is_default)


def _nodes(client: Client, cluster: str) -> list[dict[str, Any]]:
    """None where researchers may not see nodes."""
    try:
        answer = client.get(NODES, {"filterBy": only(clusterUuid=f"=={cluster}"), "limit": 500})
    except Refused:
        return []
    return [node for node in _plain(answer, "nodes") if node.get("clusterUuid") in (None, cluster)]


def _plain(answer: Any, key: str) -> list[dict[str, Any]]:
    """Items that need no `id`."""
    items = answer.get(key) if isinstance(answer, Mapping) else answer
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else items_of(answer, key, key)


def _project(item: Mapping[str, Any]) -> Project:
    resources = item.get("resources")
    quotas = [_quota(entry) for entry in resources if isinstance(entry, Mapping)] if isinstance(resources, list) else []
    defaults = item.get("defaultNodePools")
    return Project(
        id=str(item["id"]),
        name=str(item.get("name", "")),
        cluster=str(item.get("clusterId") or item.get("clusterUuid") or ""),
        quotas=tuple(quotas),
        default_pools=tuple(map(str, defaults))
        if isinstance(defaults, Sequence) and not isinstance(defaults, str)
        else (),
    )


def _quota(entry: Mapping[str, Any]) -> Quota:
    pool, gpu = entry.get("nodePool"), entry.get("gpu")
    name = str(pool.get("name") or pool.get("id")) if isinstance(pool, Mapping) else ""
    values = gpu if isinstance(gpu, Mapping) else {}
    return Quota(name, _number(values.get("deserved")), _number(values.get("limit")))


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15  # nor NaN
    return float(value) if usable else None


def _cluster(item: Mapping[str, Any]) -> Cluster:
    status = item.get("status")
    state = str(status.get("state") or "") if isinstance(status, Mapping) else ""
    return Cluster(
        id=str(item.get("uuid") or item.get("id") or ""),
        name=str(item.get("name", "")),
        domain=str(item.get("domain") or ""),
        version=str(item.get("version") or ""),
        state=state,
    )


def _pool(item: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> NodePool:
    infos = [info for node in nodes if isinstance(info := node.get("gpuInfo"), Mapping)]
    counts = [int(_number(info.get("gpuCount")) or 0) for info in infos]
    return NodePool(
        name=str(item.get("name", "")),
        is_default=bool(item.get("isDefault")),
        phase=str(item.get("phase") or ""),
        nodes=len(nodes),
        gpus=min(counts, default=0),
        gpu=", ".join(sorted({str(info.get("gpuType")) for info in infos})),
    )
