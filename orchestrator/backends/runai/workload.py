"""From what an attempt asks for to the body of a workload. Pure.

One node is a training, several are a distributed workload of PyTorch, whose master is a node as well. What Run:ai would do by
itself is switched off: no reruns (`backoffLimit`, 6 by default), no other node pool, no random name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.backends.base import JobRequest
from orchestrator.backends.runai import script
from orchestrator.backends.runai.directory import Project
from orchestrator.backends.runai.settings import Settings
from orchestrator.errors import BackendError
from orchestrator.job.wrapper import ENV_NOTICE
from orchestrator.runai_spec import KeyOfSecret, MountSpec, wrong_in_pool
from trainer_ext.records import ENV_ATTEMPT_TOKEN, ENV_IMAGE

NAME_LENGTH = 50
_DIGEST_LENGTH = 8
_TAIL_LENGTH = 14
"""Of a job's name: the dash, the point's ten digits and the attempt's number, which a short name keeps."""
MIB = 1024**2
LABEL_LENGTH = 63
LABEL = "orchestrator-job"


class Kind(StrEnum):
    """The two kinds of workload, and how the cluster's own endpoint calls them."""

    TRAINING = "training"
    DISTRIBUTED = "distributed"

    @property
    def path(self) -> str:
        return "/api/v1/workloads/" + ("trainings" if self is Kind.TRAINING else "distributed")

    @property
    def framework(self) -> str:
        return "runai" if self is Kind.TRAINING else "pytorch"


@dataclass(frozen=True)
class Ask:
    """Where to send a body."""

    kind: Kind
    body: dict[str, Any]


def workload_name(name: str, token: str) -> str:
    """The workload's name: the job's, with a digest of the attempt's token.

    Run:ai keeps names for as long as it keeps workloads, and an older state folder may have used this job's.
    """
    digest = hashlib.sha256(token.encode()).hexdigest()[:_DIGEST_LENGTH]
    room = NAME_LENGTH - _DIGEST_LENGTH - 1
    if len(name) > room:
        tail = name[-_TAIL_LENGTH:].lstrip("-")
        name = f"{name[: room - len(tail) - 1].rstrip('-')}-{tail}"
    return f"{name}-{digest}"


def nodes(request: JobRequest) -> int:
    """How many nodes the attempt needs.

    Raises:
        BackendError: its GPUs fill no whole number of nodes.
    """
    wanted, a_node = request.resources.gpus, request.pool.gpus if request.pool else 0
    if not a_node or wanted <= a_node:
        return 1
    if wanted % a_node:
        raise BackendError(f"{request.name}: {wanted} GPUs are no whole number of nodes with {a_node}")
    return wanted // a_node


def ask(request: JobRequest, settings: Settings, project: Project) -> Ask:
    """What is to be created.

    Raises:
        BackendError: the settings or the pool's options cannot be used.
    """
    count = nodes(request)
    body: dict[str, Any] = {
        "name": workload_name(request.name, request.token),
        "useGivenNameAsPrefix": False,
        "projectId": project.id,
        "clusterId": project.cluster,
        "spec": spec(request, settings, count),
    }
    if count == 1:
        return Ask(Kind.TRAINING, body)
    body["spec"] |= {"distributedFramework": "PyTorch", "numWorkers": count - 1}  # and the master makes `count`
    body["masterSpecSameAsWorker"] = True
    return Ask(Kind.DISTRIBUTED, body)


def spec(request: JobRequest, settings: Settings, count: int) -> dict[str, Any]:
    """What every container of the workload gets."""
    given, pool = settings.spec, _options(request)
    folder = settings.inside(request.attempt_dir)
    found = {
        "image": image(settings),
        "imagePullPolicy": given.image_pull_policy,
        "imagePullSecrets": [{"name": name, "userCredential": False} for name in given.image_pull_secrets],
        "command": "/bin/sh",
        "args": script.argument(folder),
        "workingDir": given.working_dir,
        "environmentVariables": environment(request, settings),
        "compute": compute(request, pool, count, large_shm=given.large_shm),
        "nodePools": [str(pool.get("node_pool") or request.pool.name)] if request.pool else None,
        "nodeAffinityRequired": _elsewhere(request.resources.exclude_nodes),
        "priorityClass": pool.get("priority") or given.priority,
        "preemptibility": pool.get("preemptibility") or given.preemptibility,
        "backoffLimit": 0,
        "restartPolicy": "Never",
        "terminateAfterPreemption": False,
        "terminationGracePeriodSeconds": math.ceil(given.grace),
        "autoDeletionTimeAfterCompletionSeconds": math.ceil(given.keep),
        "labels": labels(request.name, given.labels),
        "storage": storage(settings.mounts),
    }
    return {key: value for key, value in found.items() if value not in (None, [], {})}


def image(settings: Settings) -> str:
    """The containers' image.

    Raises:
        BackendError: there is none.
    """
    if not settings.image:
        raise BackendError(
            "Run:ai needs an image: set RUNAI_IMAGE or runai.image to one that has Python, verl and this package"
        )
    return settings.image


def environment(request: JobRequest, settings: Settings) -> list[dict[str, Any]]:
    """Ours first; secrets as references that the cluster follows."""
    own = {ENV_ATTEMPT_TOKEN: request.token, ENV_IMAGE: settings.image or ""}
    if settings.spec.notice:
        own[ENV_NOTICE] = f"{settings.spec.notice:g}"
    found: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in own.items()]
    for name, value in settings.spec.environment.items():
        if isinstance(value, KeyOfSecret):
            found.append({"name": name, "secret": {"name": value.secret, "key": value.key}})
        else:
            found.append({"name": name, "value": value})
    return found


def compute(request: JobRequest, pool: Mapping[str, Any], count: int, *, large_shm: bool) -> dict[str, Any]:
    """GPUs, cores and memory of one node."""
    memory = request.resources.host_memory_bytes
    quantity = None if memory is None else f"{math.ceil(memory / MIB)}Mi"
    extended = pool.get("extended_resources") or {}
    found = {
        "gpuDevicesRequest": request.resources.gpus // count,
        "largeShmRequest": large_shm,
        "cpuCoreRequest": pool.get("cpus"),
        "cpuMemoryRequest": quantity,
        "cpuMemoryLimit": quantity,
        "extendedResources": [{"resource": str(name), "quantity": str(value)} for name, value in extended.items()],
    }
    return {key: value for key, value in found.items() if value not in (None, [])}


def storage(mounts: tuple[MountSpec, ...]) -> dict[str, Any]:
    """The mounts, each with `readOnly` said: for NFS and host paths its default is true."""
    found: dict[str, list[dict[str, Any]]] = {}
    for mount in mounts:
        if mount.pvc:  # without existingPvc a new claim would be made
            entry = {"claimName": mount.pvc, "existingPvc": True, "path": mount.path, "readOnly": mount.read_only}
            found.setdefault("pvc", []).append(entry)
        elif mount.nfs:
            server, _, export = mount.nfs.partition(":")
            entry = {"server": server, "path": export, "mountPath": mount.path, "readOnly": mount.read_only}
            found.setdefault("nfs", []).append(entry)
        else:
            entry = {"path": mount.host_path, "mountPath": mount.path, "readOnly": mount.read_only}
            found.setdefault("hostPath", []).append(entry)
    return found


def labels(name: str, given: Mapping[str, str]) -> list[dict[str, str]]:
    """They reach the pods; Run:ai itself can neither list nor filter by them."""
    return [{"name": key, "value": value} for key, value in {LABEL: name[:LABEL_LENGTH].rstrip("-"), **given}.items()]


def run_script(request: JobRequest, settings: Settings) -> tuple[Path, str]:
    """Path (here) and content of what the container runs."""
    folder = settings.inside(request.attempt_dir)
    return request.attempt_dir / script.NAME, script.text(folder, settings.python, nodes(request))


def _options(request: JobRequest) -> Mapping[str, Any]:
    options = request.pool.options if request.pool else {}
    for key, must_be in wrong_in_pool(options).items():
        raise BackendError(f"pools: {key} {must_be}, not {options[key]!r}")
    return options


def _elsewhere(nodes: tuple[str, ...]) -> dict[str, Any] | None:
    """Not on the nodes that failed before."""
    if not nodes:
        return None
    condition = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": list(nodes)}
    return {"nodeSelectorTerms": [{"matchExpressions": [condition]}]}
