"""Projects, clusters, node pools, nodes and priorities, as the API shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.runai import views
from tests.runai.plane import CARDS, PROJECT, ControlPlane
from tests.runai.scheduler import PRIORITIES

MADE = "2026-01-01T00:00:00.000Z"
CLUSTER = "cluster-a"
CARD_NAMES = {"h100": "NVIDIA-H100-80GB-HBM3", "h200": "NVIDIA-H200"}


def project() -> dict[str, Any]:
    quota = [{"nodePool": {"id": pool, "name": pool}, "gpu": {"deserved": 16, "limit": -1}} for pool in CARDS]
    return {
        **PROJECT,
        "resources": quota,
        "createdAt": MADE,
        "effective": {"defaultNodePools": list(CARDS)},
        "status": {"phase": "Ready", "namespace": f"runai-{PROJECT['name']}"},
    }


def cluster(plane: ControlPlane) -> dict[str, Any]:
    return {
        "uuid": PROJECT["clusterId"],
        "tenantId": views.TENANT,
        "name": CLUSTER,
        "createdAt": MADE,
        "domain": plane.domain,
        "version": plane.version,
        "status": {"state": "Connected"},
    }


def node_pools(plane: ControlPlane) -> list[dict[str, Any]]:
    who = {"createdBy": "admin", "createdAt": MADE, "updatedBy": "admin", "updatedAt": MADE}
    return [
        {
            "id": pool,
            "name": pool,
            "labelKey": "node-pool",
            "labelValue": pool,
            "clusterId": PROJECT["clusterId"],
            "clusterName": CLUSTER,
            "tenantId": views.TENANT,
            "isDefault": False,
            "phase": "Ready",
            "status": {"nodes": [node.name for node in plane.nodes if node.pool == pool]},
            **who,
        }
        for pool in CARDS
    ]


def nodes(plane: ControlPlane) -> list[dict[str, Any]]:
    return [
        {
            "name": node.name,
            "id": node.name,
            "status": "NotReady" if node.name in plane.cluster.dead else "Ready",
            "nodePool": node.pool,
            "clusterUuid": PROJECT["clusterId"],
            "createdAt": MADE,
            "updatedAt": MADE,
            "gpuInfo": {"gpuType": CARD_NAMES[node.pool], "gpuCount": node.gpus},
        }
        for node in plane.nodes
    ]


def priorities() -> list[Mapping[str, Any]]:
    return [{"id": name, "name": name, "value": value} for name, value in PRIORITIES.items()]
