"""What a container prints, from the cluster's own endpoint: there while the workload lives, and gone with it.

The log that counts is `console.log` in the attempt folder. This one shows what comes before it: the start of the
container, and why the wrapper did not begin.
"""

from __future__ import annotations

from urllib.parse import quote

from orchestrator.backends.runai.client import Client
from orchestrator.backends.runai.directory import Project, clusters
from orchestrator.backends.runai.workload import Kind
from orchestrator.errors import BackendError, Unobservable


def address(domain: str, project: str, kind: Kind, name: str) -> str:
    """Where the log of a workload lies."""
    path = f"{quote(project)}/workloads/training/{kind.framework}/{quote(name)}"
    return f"{_host(domain)}/cluster-api/api/v1/{path}/logs/download"


def status_address(domain: str) -> str:
    """What answers where the endpoint can be reached."""
    return f"{_host(domain)}/cluster-api/status"


def _host(domain: str) -> str:
    return (domain if domain.startswith(("http://", "https://")) else f"https://{domain}").rstrip("/")


def read(client: Client, project: Project, kind: Kind, name: str) -> bytes:
    """All that is there now.

    Raises:
        BackendError: there is none (any more), or the cluster cannot be reached from here.
    """
    cluster = next((cluster for cluster in clusters(client) if cluster.id == project.cluster), None)
    if cluster is None or not cluster.domain:
        raise Unobservable("Run:ai does not say where the cluster's own endpoint is; read console.log")
    try:
        return client.content(address(cluster.domain, project.name, kind, name))
    except Unobservable as error:
        raise Unobservable(
            f"{error}; the cluster's own endpoint may be closed from here: console.log is in the folder"
        ) from error
    except BackendError as error:
        raise BackendError(f"no log at the cluster: {error}; it is there only while the workload lives") from error
