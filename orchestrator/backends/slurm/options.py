"""From what an attempt asks for to what sbatch is told, in the parameters of submitit. Pure.

A pool's own keys: partition, constraint, gres, account, qos, reservation, cpus, container, container_mounts, and `extra`, a
mapping of further sbatch options by name. Keys that Slurm does not know belong to other backends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.backends.base import JobRequest
from orchestrator.errors import BackendError

WARNING_S = 90
"""The wrapper gets SIGUSR2 this long before the time limit (Slurm may be a minute early), and on preemption."""
OPTIONS = ("partition", "constraint", "gres", "account", "qos", "reservation", "cpus", "container", "container_mounts")
EXTRA = "extra"
_RESERVED = frozenset(
    {"job-name", "comment", "array", "signal", "requeue", "no-requeue", "open-mode", "output", "error", "wrap"}
)
"""Options that this backend needs for itself."""
MIB = 1024**2


def parameters(request: JobRequest, name: str, comment: str) -> dict[str, Any]:
    """The parameters of submitit's Slurm executor for one job or array.

    Raises:
        BackendError: the pool's options cannot be used.
    """
    pool = _pool_options(request)
    gpus = request.resources.gpus
    found: dict[str, Any] = {
        "job_name": name,
        "comment": comment,
        "time": minutes(request.resources.time_s),
        "partition": pool.get("partition"),
        "constraint": pool.get("constraint"),
        "account": pool.get("account"),
        "qos": pool.get("qos"),
        "cpus_per_task": pool.get("cpus"),
        "gres": pool.get("gres", f"gpu:{gpus}" if gpus else None),
        "exclude": ",".join(request.resources.exclude_nodes) or None,
        "wckey": None,  # submitit would set its own name, which clusters that enforce wckeys refuse
        "ntasks_per_node": 1,
        "use_srun": False,  # with srun, Slurm reports a job that ran out of memory as FAILED
        "stderr_to_stdout": True,
        "additional_parameters": {
            **_memory(request.resources.host_memory_bytes),
            **({"reservation": pool["reservation"]} if pool.get("reservation") else {}),
            **_container(pool),
            **_extra(pool),
            "signal": f"B:USR2@{WARNING_S}",
            "requeue": True,
        },
    }
    for key, value in (*found.items(), *found["additional_parameters"].items()):
        if isinstance(value, str) and not value.isprintable():  # each is a line of a script
            raise BackendError(f"{request.name}: {key} holds control characters: {value!r}")
    return found


def minutes(time_s: float | None) -> int | None:
    """Slurm's limits are whole minutes."""
    return None if time_s is None else math.ceil(time_s / 60)


def fixed(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The part that its owner cannot change after the submission, and which of the others were set: they cannot be unset.

    The time limit is among it, since only an administrator may raise it.
    """
    more = parameters["additional_parameters"]
    kept = {key: parameters[key] for key in ("gres", "cpus_per_task", "account", "qos", "time")}
    rest = {key: value for key, value in more.items() if key not in ("mem", "signal", "requeue")}
    given = [key for key in ("partition", "constraint") if parameters[key] is not None] + ["mem"] * ("mem" in more)
    return {**kept, **rest, "given": given}


def changes(parameters: Mapping[str, Any]) -> list[str]:
    """The other part, as words for `scontrol update job`."""
    memory = parameters["additional_parameters"].get("mem")
    words = {
        "Partition": parameters["partition"],
        "Features": parameters["constraint"],
        "MinMemoryNode": memory and memory.removesuffix("M"),
        "ExcNodeList": parameters["exclude"],
    }
    return [f"{key}={value}" for key, value in words.items() if value is not None]


def same_shape(requests: Sequence[JobRequest]) -> list[list[JobRequest]]:
    """Requests that ask for the same, together, each group in the order given: what may be one job array."""
    groups: dict[str, list[JobRequest]] = {}
    for request in requests:
        groups.setdefault(repr((request.pool, request.resources)), []).append(request)
    return list(groups.values())


def _memory(host_memory_bytes: int | None) -> dict[str, str]:
    return {} if host_memory_bytes is None else {"mem": f"{math.ceil(host_memory_bytes / MIB)}M"}


def _container(pool: Mapping[str, Any]) -> dict[str, str]:
    names = {"container": "container-image", "container_mounts": "container-mounts"}
    return {option: str(pool[key]) for key, option in names.items() if pool.get(key)}


def _extra(pool: Mapping[str, Any]) -> dict[str, Any]:
    extra = pool.get(EXTRA) or {}
    if not isinstance(extra, Mapping):
        raise BackendError(f"pools: `extra` is a mapping of sbatch options, not {extra!r}")
    named = {str(key).lstrip("-").replace("_", "-"): value for key, value in extra.items()}
    if odd := [key for key in named if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", key)]:
        raise BackendError(f"pools: extra names no option of sbatch with {odd[0]!r}")
    if taken := sorted(named.keys() & _RESERVED):
        raise BackendError(f"pools: extra may not set {', '.join(taken)}: the orchestrator needs that for itself")
    return named


def _pool_options(request: JobRequest) -> Mapping[str, Any]:
    options = request.pool.options if request.pool else {}
    for key in OPTIONS:
        value = options.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise BackendError(f"pools: {key} is one word or number, not {value!r}")
    return options
