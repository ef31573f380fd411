"""Bodies of workloads: two whole ones, kept as files, and what may vary in them. runapy's own models read both."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runai.models.distributed_creation_request import DistributedCreationRequest
from runai.models.training_creation_request import TrainingCreationRequest

from orchestrator.backends.base import JobRequest
from orchestrator.backends.runai.directory import Project
from orchestrator.backends.runai.settings import Settings, resolve
from orchestrator.backends.runai.workload import NAME_LENGTH, Kind, ask, workload_name
from orchestrator.errors import BackendError
from orchestrator.model import Pool, Resources
from orchestrator.runai_spec import RunaiSpec

GOLDEN = Path(__file__).parents[3] / "golden"
PROJECT = Project("4501", "research", "b9c81f3f-3cbb-498b-822b-8ab004ef6462")
H100 = Pool("h100", 8, 81559, {"node_pool": "h100-80", "cpus": 64, "extended_resources": {"rdma/ib": 8}})
SPEC = RunaiSpec.model_validate(
    {
        "base_url": "https://company.run.ai",
        "image": "registry/verl:1",
        "image_pull_secrets": ["regcred"],
        "python": "/opt/venv/bin/python",
        "working_dir": "/shared/code",
        "mounts": [
            {"pvc": "shared", "path": "/shared", "local": "/mnt/nas"},
            {"nfs": "10.0.0.2:/export", "path": "/data", "read_only": True},
            {"host_path": "/scratch", "path": "/scratch"},
        ],
        "environment": {"HF_HOME": "/shared/hf", "WANDB_API_KEY": {"secret": "wandb", "key": "API_KEY"}},
        "labels": {"team": "rl"},
        "priority": "low",
        "preemptibility": "preemptible",
        "grace": "90s",
        "notice": 30,
        "keep": "3d",
    }
)
SETTINGS = resolve(SPEC, {})
REQUEST = JobRequest(
    name="factor-0123456789-1",
    token="0123456789abcdef0123456789abcdef",
    attempt_dir=Path("/mnt/nas/runs/sweeps/factor/0123456789/1"),
    pool=H100,
    resources=Resources(gpus=8, host_memory_bytes=900 * 1024**3, exclude_nodes=("node-7",)),
)


def spec_of(request: JobRequest = REQUEST, settings: Settings = SETTINGS) -> dict[str, Any]:
    spec = ask(request, settings, PROJECT).body["spec"]
    assert isinstance(spec, dict)
    return spec


@pytest.mark.parametrize(
    ("gpus", "kind", "file", "model"),
    [
        (8, Kind.TRAINING, "runai_training.json", TrainingCreationRequest),
        (32, Kind.DISTRIBUTED, "runai_distributed.json", DistributedCreationRequest),
    ],
)
def test_the_body_is_the_one_on_file_and_run_ais_own_model_reads_it(gpus, kind, file, model):
    found = ask(replace(REQUEST, resources=replace(REQUEST.resources, gpus=gpus)), SETTINGS, PROJECT)
    assert found.kind is kind
    assert found.body == json.loads((GOLDEN / file).read_text())
    assert model.from_dict(found.body) is not None


def test_several_nodes_count_the_master() -> None:
    body = ask(replace(REQUEST, resources=Resources(gpus=32)), SETTINGS, PROJECT).body
    assert body["spec"]["numWorkers"] == 3, "and the master is the fourth"
    assert body["spec"]["compute"]["gpuDevicesRequest"] == 8
    with pytest.raises(BackendError, match="no whole number of nodes"):
        ask(replace(REQUEST, resources=Resources(gpus=12)), SETTINGS, PROJECT)


def test_what_run_ai_would_do_by_itself_is_switched_off() -> None:
    spec = spec_of()
    assert (spec["backoffLimit"], spec["restartPolicy"], spec["terminateAfterPreemption"]) == (0, "Never", False)
    assert spec["nodePools"] == ["h100-80"], "one an attempt: the ladder is ours"
    assert ask(REQUEST, SETTINGS, PROJECT).body["useGivenNameAsPrefix"] is False


def test_each_mount_says_whether_it_is_read_only_and_no_claim_is_made() -> None:
    storage = spec_of()["storage"]
    assert [mount["readOnly"] for kind in ("pvc", "nfs", "hostPath") for mount in storage[kind]] == [False, True, False]
    assert storage["pvc"][0]["existingPvc"] is True


def test_a_secret_is_a_reference_and_the_token_a_value() -> None:
    variables = {item["name"]: item for item in spec_of()["environmentVariables"]}
    assert variables["WANDB_API_KEY"] == {"name": "WANDB_API_KEY", "secret": {"name": "wandb", "key": "API_KEY"}}
    assert variables["ORCHESTRATOR_ATTEMPT_TOKEN"]["value"] == REQUEST.token


def test_the_command_is_a_shell_and_one_path_that_nothing_would_split() -> None:
    spec = spec_of()
    assert (spec["command"], spec["args"]) == ("/bin/sh", "/shared/runs/sweeps/factor/0123456789/1/runai.sh")
    blank = replace(REQUEST, attempt_dir=Path("/mnt/nas/my runs/1"))
    with pytest.raises(BackendError, match="plain characters"):
        spec_of(blank)


def test_without_a_pool_the_projects_own_order_counts_and_without_gpus_none_is_asked_for() -> None:
    spec = spec_of(replace(REQUEST, pool=None, resources=Resources()))
    assert "nodePools" not in spec
    assert spec["compute"] == {"gpuDevicesRequest": 0, "largeShmRequest": True}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpus": "many"}, "cpus is a number"),
        ({"node_pool": ["a", "b"]}, "node_pool is one name"),
        ({"extended_resources": "rdma/ib"}, "extended_resources is a mapping"),
    ],
)
def test_a_pools_options_that_cannot_be_used_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        spec_of(replace(REQUEST, pool=Pool("p", 8, options=options)))


def test_no_image_is_said_with_what_to_do() -> None:
    with pytest.raises(BackendError, match="RUNAI_IMAGE"):
        spec_of(settings=replace(SETTINGS, image=None))


job_names = st.from_regex(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?-[0-9a-f]{10}-[1-9][0-9]{0,2}", fullmatch=True)


@given(name=job_names, token=st.text(min_size=1), other=st.text(min_size=1))
def test_names_are_short_valid_and_different_for_different_tokens(name, token, other):
    found = workload_name(name, token)
    assert len(found) <= NAME_LENGTH
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", found)
    assert name.rsplit("-", 1)[1] == found.split("-")[-2], "the attempt's number can be read"
    assert (found == workload_name(name, other)) == (token == other)
