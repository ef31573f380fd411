"""Names of projects, clusters and node pools, looked up where the answers are as the API documents them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from orchestrator.backends.runai.backend import RunaiBackend
from orchestrator.backends.runai.directory import Quota, find_cluster, find_project, node_pools
from orchestrator.clock import FakeClock
from orchestrator.errors import UsageError
from orchestrator.model import Pool
from orchestrator.runai_spec import RunaiSpec

A, B = "aaaaaaaa-0000-4000-8000-000000000000", "bbbbbbbb-0000-4000-8000-000000000000"
GPU_QUOTA = {"nodePool": {"id": "1", "name": "h100"}, "gpu": {"deserved": 16, "limit": None}}
ANSWERS: Mapping[str, Any] = {
    "/api/v1/org-unit/projects": {
        "projects": [
            {"id": "1", "name": "research", "clusterId": A, "resources": [GPU_QUOTA]},
            {"id": 2, "name": "research", "clusterId": B},
            {"id": "3", "name": "product", "clusterId": A},
        ]
    },
    "/api/v1/clusters": [
        {"uuid": A, "name": "cluster-a", "domain": "a.test", "version": "2.24.1", "status": {"state": "Connected"}},
        {"uuid": B, "name": "cluster-b"},
    ],
    "/api/v1/node-pools": {
        "nodepools": [
            {"id": "1", "name": "h100", "clusterId": A, "isDefault": False, "phase": "Ready"},
            {"id": "2", "name": "default", "clusterId": A, "isDefault": True, "phase": "Ready"},
            {"id": "3", "name": "elsewhere", "clusterId": B, "isDefault": True},
        ]
    },
    "/api/v1/nodes": {
        "nodes": [
            {"name": "n1", "nodePool": "h100", "clusterUuid": A, "gpuInfo": {"gpuType": "H100", "gpuCount": 8}},
            {"name": "n2", "nodePool": "h100", "clusterUuid": A, "gpuInfo": {"gpuType": "H100", "gpuCount": 4}},
            {"name": "n3", "nodePool": "default", "clusterUuid": A},
            {"name": "n4", "nodePool": "elsewhere", "clusterUuid": B, "gpuInfo": {"gpuType": "T4", "gpuCount": 1}},
        ]
    },
}


def backend(answers: Mapping[str, Any] = ANSWERS, **environ: str) -> RunaiBackend:
    def answer(request: httpx.Request) -> httpx.Response:
        if "token" in request.url.path:
            return httpx.Response(200, json={"access_token": "t", "expires_in": 600})
        found = answers.get(request.url.path)
        return (
            httpx.Response(403, json={"code": 403, "message": "no"})
            if found is None
            else httpx.Response(200, json=found)
        )

    known = {"RUNAI_BASE_URL": "http://runai.test", "RUNAI_CLIENT_ID": "i", "RUNAI_CLIENT_SECRET": "s", **environ}
    return RunaiBackend.of(RunaiSpec(), known, clock=FakeClock(), transport=httpx.MockTransport(answer))


def test_a_project_is_found_by_name_and_cluster_with_its_quota() -> None:
    client = backend().client
    found = find_project(client, "research", "cluster-a")
    assert (found.id, found.cluster, found.quotas) == ("1", A, (Quota("h100", 16.0, None),))
    assert find_project(client, "research", B).id == "2"
    assert find_project(client, "product", None).id == "3"


@pytest.mark.parametrize(
    ("name", "cluster", "message"),
    [
        ("research", None, "several clusters have a project 'research'"),
        (None, None, "set RUNAI_PROJECT or runai.project to one of product, research, research"),
        ("produkt", None, "did you mean `product`"),
        ("research", "cluster-c", "no cluster 'cluster-c'"),
    ],
)
def test_what_cannot_be_told_is_asked_of_the_user(name: str | None, cluster: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_project(backend().client, name, cluster)


def test_the_only_project_needs_no_name_and_none_is_said_to_be_so() -> None:
    one = {"projects": [{"id": "9", "name": "mine", "clusterId": A}]}
    assert find_project(backend({"/api/v1/org-unit/projects": one}).client, None, None).name == "mine"
    with pytest.raises(UsageError, match="see no project"):
        find_project(backend({"/api/v1/org-unit/projects": {"projects": []}}).client, None, None)


def test_a_cluster_is_known_by_name_or_id() -> None:
    client = backend().client
    assert find_cluster(client, "cluster-a") == find_cluster(client, A)
    assert find_cluster(client, B).domain == ""


def test_node_pools_are_those_of_the_cluster_the_default_first_with_the_gpus_of_a_node() -> None:
    default, h100 = node_pools(backend().client, A)
    assert (default.name, default.gpus) == ("default", 0)
    assert (h100.name, h100.nodes, h100.gpus, h100.gpu) == ("h100", 2, 4, "H100")


def test_where_nodes_are_not_shown_the_pools_are_known_without_their_gpus() -> None:
    hidden = {path: answer for path, answer in ANSWERS.items() if path != "/api/v1/nodes"}
    assert [(pool.name, pool.gpus) for pool in node_pools(backend(hidden).client, A)] == [("default", 0), ("h100", 0)]


def test_a_sweep_without_pools_has_those_whose_nodes_have_gpus() -> None:
    found = backend(RUNAI_PROJECT="product").pools()
    assert found == [Pool("h100", 4, options={"node_pool": "h100"})]
