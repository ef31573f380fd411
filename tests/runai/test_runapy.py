"""Run:ai's own client drives the double: what it sends is understood, and what it gets it can read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from runai import models
from runai.api_client import ApiClient
from runai.configuration import Configuration
from runai.exceptions import ApiException
from runai.runai_client import RunaiClient

from tests.e2e.sweeping import wait_for
from tests.runai.faults import accepted_then_dropped
from tests.runai.plane import PROJECT
from tests.runai.server import Server

PATIENCE_S = 20.0


@pytest.fixture
def client(server: Server) -> Iterator[RunaiClient]:
    connection = connect(server)
    yield RunaiClient(connection)
    connection.close()


def connect(server: Server) -> ApiClient:
    environ = server.environ
    return ApiClient(
        Configuration(
            client_id=environ["RUNAI_CLIENT_ID"],
            client_secret=environ["RUNAI_CLIENT_SECRET"],
            runai_base_url=server.url,
            retry_enabled=False,
        )
    )


def training(name: str, command: str, **spec: Any) -> models.TrainingCreationRequest:
    """A request for 8 GPUs of the smaller pool."""
    fields = {
        "image": "busybox",
        "command": command,
        "node_pools": ["h100"],
        "compute": models.SupersetSpecAllOfCompute(gpu_devices_request=8, large_shm_request=True),
        "backoff_limit": 0,
        "restart_policy": "Never",
        **spec,
    }
    return models.TrainingCreationRequest(
        name=name,
        project_id=PROJECT["id"],
        cluster_id=PROJECT["clusterId"],
        spec=models.TrainingSpecSpec(**fields),
    )


def phase(client: RunaiClient, id_: str) -> str:
    return client.workloads.workloads.get_workload(id_).data["phase"]


def ends(client: RunaiClient, id_: str) -> str:
    over = ("Completed", "Failed")
    return wait_for(lambda: (now := phase(client, id_)) in over and now, PATIENCE_S, "the workload ends")


def test_a_training_runs_from_creation_to_its_end(client: RunaiClient) -> None:
    created = client.workloads.trainings.create_training1(training("first", "echo", args="'hello there'"))
    assert created.status_code == 202
    id_ = created.data["workloadId"]
    assert ends(client, id_) == "Completed"
    listed = client.workloads.workloads.get_workloads(filter_by=["name==first"]).data["workloads"]
    assert [row["id"] for row in listed] == [id_]
    (pod,) = client.workloads.pods.get_workload_pods(id_).data["pods"]
    assert pod["currentNodePool"] == "h100"
    assert pod["containers"] == [{"name": "main", "image": "busybox", "startedAt": pod["containers"][0]["startedAt"]}]
    records = client.workloads.events.get_workload_history(id_).data["records"]
    phases = [one["spec"]["phaseUpdate"]["phase"] for one in records if one["meta"]["type"] == "PhaseUpdate"]
    assert list(dict.fromkeys(phases)) == ["Creating", "Pending", "Initializing", "Running", "Completed"]


def test_a_failing_training_is_run_again_six_times_unless_told_otherwise(client: RunaiClient, server: Server) -> None:
    once = client.workloads.trainings.create_training1(training("once", "false")).data["workloadId"]
    seven = client.workloads.trainings.create_training1(training("seven", "false", backoff_limit=None))
    assert ends(client, once) == ends(client, seven.data["workloadId"]) == "Failed"
    pods = {one.name: len(one.pods) for one in server.plane.workloads.values()}
    assert pods == {"once": 1, "seven": 7}


def test_a_distributed_workload_takes_a_node_for_each_pod(client: RunaiClient, server: Server) -> None:
    worker = training("pair", "true").spec.to_dict() | {"distributedFramework": "PyTorch", "numWorkers": 1}
    request = models.DistributedCreationRequest.from_dict(
        {**training("pair", "true").to_dict(), "spec": worker, "masterSpecSameAsWorker": True}
    )
    id_ = client.workloads.distributed.create_distributed(request).data["workloadId"]
    assert ends(client, id_) == "Completed"
    assert sorted(pod.node for pod in server.plane.workloads[id_].pods) == ["h100-0", "h100-1"]


def test_suspending_and_resuming_starts_it_again(client: RunaiClient, server: Server) -> None:
    request = training("pause", "sleep 30", termination_grace_period_seconds=1)
    id_ = client.workloads.trainings.create_training1(request).data["workloadId"]
    wait_for(lambda: phase(client, id_) == "Running", PATIENCE_S, "it runs")
    assert client.workloads.trainings.suspend_training(id_).status_code == 202
    wait_for(lambda: phase(client, id_) == "Stopped", PATIENCE_S, "it stops")
    assert client.workloads.trainings.resume_training(id_).status_code == 202
    wait_for(lambda: phase(client, id_) == "Running", PATIENCE_S, "it runs again")
    assert len(server.plane.workloads[id_].pods) == 2


def test_a_deleted_training_is_among_the_deleted_and_nowhere_else(client: RunaiClient) -> None:
    id_ = client.workloads.trainings.create_training1(training("doomed", "sleep 30")).data["workloadId"]
    assert client.workloads.trainings.delete_training(id_).status_code == 202
    workloads = client.workloads.workloads
    wait_for(lambda: not workloads.get_workloads().data["workloads"], PATIENCE_S, "it is gone")
    (row,) = workloads.get_workloads(deleted=True).data["workloads"]
    assert (row["id"], row["deletedAt"] is None) == (id_, False)
    with pytest.raises(ApiException) as caught:
        workloads.get_workload(id_)
    assert caught.value.status == 404


def test_the_same_name_is_refused_and_says_why(client: RunaiClient) -> None:
    client.workloads.trainings.create_training1(training("twin", "sleep 30"))
    with pytest.raises(ApiException, match="workload with name 'twin' already exists in this project"):
        client.workloads.trainings.create_training1(training("twin", "sleep 30"))


def test_a_lost_reply_leaves_a_workload_behind(client: RunaiClient, server: Server) -> None:
    server.plane.faults.add(accepted_then_dropped())
    with pytest.raises(Exception, match="Connection aborted"):
        client.workloads.trainings.create_training1(training("lost", "true"))
    assert [one.name for one in server.plane.workloads.values()] == ["lost"]


def test_projects_clusters_pools_and_priorities_are_readable(client: RunaiClient) -> None:
    (project,) = client.organizations.projects.get_projects(filter_by=["name==research"]).data["projects"]
    (cluster,) = client.organizations.clusters.get_clusters().data
    pools = client.organizations.node_pools.get_nodepools().data["nodepools"]
    priorities = client.workloads.workload_properties.get_workload_priorities().data["priorities"]
    assert project["clusterId"] == cluster["uuid"]
    nodes = client.organizations.nodes.get_tenant_nodes().data["nodes"]
    assert [pool["name"] for pool in pools] == ["h100", "h200"]
    assert [(node["nodePool"], node["gpuInfo"]["gpuCount"]) for node in nodes] == [
        *(("h100", 8), ("h100", 8)),
        *(("h200", 8), ("h200", 8)),
    ]
    assert {one["name"]: one["value"] for one in priorities}["low"] == 40


def test_many_workloads_are_acted_on_at_once(client: RunaiClient) -> None:
    ids = [
        client.workloads.trainings.create_training1(training(name, "sleep 30")).data["workloadId"]
        for name in ("one", "two")
    ]
    batch = models.WorkloadBatch(ids=[*ids, "none"], action="delete")
    answer = client.workloads.workloads_batch.batch_workloads(batch).data
    assert answer["succeeded"] == ids
    assert [one["id"] for one in answer["failed"]] == ["none"]


def test_a_wrong_secret_gets_no_token(server: Server) -> None:
    with pytest.raises(ValueError, match="Failed to get access token"):
        ApiClient(Configuration(client_id="x", client_secret="y", runai_base_url=server.url, retry_enabled=False))
