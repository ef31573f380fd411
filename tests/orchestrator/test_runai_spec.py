"""The section `runai` of a sweep file: what it takes, and what it refuses before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec import load
from orchestrator.spec_model import SweepSpec


def sweep(tmp_path: Path, runai: str, more: str = "") -> SweepSpec:
    file = tmp_path / "sweep.yaml"
    file.write_text(f"name: s\nconfig: synthetic\nbackend: runai\n{more}runai: {runai}\n")
    return load(file)


def test_a_section_survives_the_store_and_holds_references_alone(tmp_path: Path) -> None:
    spec = sweep(
        tmp_path,
        "{base_url: 'https://company.run.ai/', project: 7, client_secret: {file: ~/.runai}, keep: 2d, "
        "mounts: [{pvc: shared, path: /shared/, local: /mnt}], environment: {N: 4, KEY_ID: {secret: s, key: k}}}",
    )
    assert SweepSpec.model_validate(spec.model_dump(mode="json")).runai == spec.runai
    assert (spec.runai.base_url, spec.runai.project) == ("https://company.run.ai", "7")
    assert (spec.runai.keep, spec.runai.mounts[0].path) == (2 * 86400, "/shared")
    assert spec.runai.environment["N"] == "4"


def test_a_section_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("project: research\nimage: registry/x:1\n")
    assert sweep(tmp_path, "site.yaml").runai.project == "research"


@pytest.mark.parametrize(
    ("runai", "message"),
    [
        ("{client_secret: hunter2}", "is a secret: write {env: NAME} or {file: PATH}"),
        ("{environment: {WANDB_API_KEY: hunter2}}", "environment.WANDB_API_KEY looks like a secret"),
        ("{environment: {hf_token: hunter2}}", "environment.hf_token looks like a secret"),
        ("{base_url: 'https://me:hunter2@company.run.ai'}", "is the address of the control plane"),
        ("{environment: {'A B': x}}", "is no name of a variable"),
        ("{base_url: 'https://company.run.ai/path'}", "is the address of the control plane"),
        ("{environment: {ORCHESTRATOR_ATTEMPT_TOKEN: x}}", "the orchestrator needs that for itself"),
        ("{environment: {LONG: " + "x" * 10_001 + "}}", "environment.LONG has 10001 characters"),
        ("{mounts: [{pvc: a, path: /shared/../etc}]}", "without `..`"),
        ("{labels: {team: 'not a label!'}}", "cannot be a label"),
        ("{mounts: [{path: /shared}]}", "is one of pvc, nfs and host_path"),
        ("{mounts: [{pvc: a, host_path: /b, path: /shared}]}", "is one of pvc, nfs and host_path"),
        ("{mounts: [{pvc: a, path: shared}]}", "is a path from the root"),
        ("{mounts: [{nfs: server, path: /shared}]}", "mounts[0].nfs"),
        ("{grace: 30s, notice: 20}", "do not fit into grace"),
        ("{preemptibility: sometimes}", "preemptibility"),
        ("{projct: x}", "did you mean `project`?"),
        ("{mounts: [{pvcc: hunter2, path: /x}]}", "did you mean `pvc`?"),
        ("{client_id: {fil: hunter2}}", "did you mean `file`?"),
        ("{environment: {A: {secret: s, kye: hunter2}}}", "did you mean `key`?"),
    ],
)
def test_a_mistake_names_its_key_and_never_repeats_a_secret(tmp_path: Path, runai: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        sweep(tmp_path, runai)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_job_of_run_ai_may_take_several_whole_nodes(tmp_path: Path) -> None:
    pools = "pools: {h100: {gpus: 8}}\nresources: {gpus: GPUS, ladder: [h100]}\n"
    assert sweep(tmp_path, "{}", pools.replace("GPUS", "16")).resources.gpus == 16
    with pytest.raises(SpecError, match="a node of `h100` has 8 GPUs, a point asks for 12"):
        sweep(tmp_path, "{}", pools.replace("GPUS", "12"))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("cpus: many", "is a number of cores"),
        ("node_pool: [a, b]", "is one name"),
        ("extended_resources: rdma/ib", "is a mapping such as {rdma/ib: 8}"),
        ("extended_resources: {rdma/ib: [8]}", "is a mapping such as {rdma/ib: 8}"),
        ("preemptibility: sometimes", "is one of preemptible"),
    ],
)
def test_a_pool_that_run_ai_could_not_use_is_refused_with_its_line(tmp_path: Path, key: str, message: str) -> None:
    pools = f"pools:\n  h100:\n    gpus: 8\n    {key}\n"
    name = key.partition(":")[0]
    with pytest.raises(SpecError) as caught:
        sweep(tmp_path, "{}", pools)
    assert str(caught.value).startswith(f"{tmp_path / 'sweep.yaml'}:7: pools.h100.{name}: {message}")


def test_paths_are_written_in_one_way(tmp_path: Path) -> None:
    mounts = sweep(tmp_path, "{mounts: [{pvc: a, path: //shared//x/./, local: /}]}").runai.mounts
    assert (mounts[0].path, mounts[0].local) == ("/shared/x", "/")
