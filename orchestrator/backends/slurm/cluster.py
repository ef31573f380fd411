"""What the cluster says of itself: limits and times of slurmctld, and its partitions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.backends.slurm.commands import CommandRunner, ask

_SETTING = re.compile(r"^(\w+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_GPUS = re.compile(r"\bgpu:(?:[\w.-]+:)?(\d+)")


@dataclass(frozen=True)
class Config:
    """From `scontrol show config`. Times are seconds."""

    version: str = ""
    max_array_size: int = 1001
    """Indices of arrays are smaller than this."""
    max_jobs: int = 10000
    min_job_age_s: float = 300.0
    """How long squeue shows what ended."""
    message_timeout_s: float = 10.0
    """How long a request may be under way."""
    has_accounting: bool = True

    @classmethod
    def parse(cls, text: str) -> Config:
        found = dict(_SETTING.findall(text))

        def number(key: str, otherwise: float) -> float:
            digits = re.match(r"\d+", found.get(key, ""))
            return float(digits[0]) if digits else otherwise

        return cls(
            version=found.get("SLURM_VERSION", ""),
            max_array_size=int(number("MaxArraySize", cls.max_array_size)),
            max_jobs=int(number("MaxJobCount", cls.max_jobs)),
            min_job_age_s=number("MinJobAge", cls.min_job_age_s),
            message_timeout_s=number("MessageTimeout", cls.message_timeout_s),
            has_accounting="slurmdbd" in found.get("AccountingStorageType", "slurmdbd"),
        )


@dataclass(frozen=True)
class Partition:
    name: str
    is_default: bool
    is_up: bool
    gpus: int
    """Per node, the most of any."""
    nodes: int
    time_limit: str
    """As Slurm writes it: 1-00:00:00, infinite."""
    memory_mib: int
    """Of the smallest node."""


def read_config(run: CommandRunner) -> Config:
    """Raises: Unobservable."""
    return Config.parse(ask(run, ["scontrol", "show", "config"]))


def read_partitions(run: CommandRunner) -> list[Partition]:
    """All that this user may see, the default one first.

    Raises:
        Unobservable: the controller does not answer.
    """
    return parse_partitions(ask(run, ["sinfo", "--noheader", "--format", "%P|%a|%G|%D|%l|%m"]))


def parse_partitions(text: str) -> list[Partition]:
    """Lines of `partition|up|gres|nodes|time limit|memory`; sinfo writes a line for each kind of node in a partition."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 6:
            one = _partition(parts)
            known = found.get(one.name)
            found[one.name] = _joined(known, one) if known else one
    return sorted(found.values(), key=lambda partition: not partition.is_default)


def _partition(parts: Sequence[str]) -> Partition:
    name, up, gres, nodes, limit, memory = parts
    gpus = sum(int(count) for count in _GPUS.findall(gres))
    mib = re.match(r"\d+", memory)
    return Partition(
        name.rstrip("*"), name.endswith("*"), up == "up", gpus, int(nodes), limit, int(mib[0]) if mib else 0
    )


def _joined(one: Partition, other: Partition) -> Partition:
    return Partition(
        one.name,
        one.is_default,
        one.is_up,
        max(one.gpus, other.gpus),
        one.nodes + other.nodes,
        one.time_limit,
        min(one.memory_mib, other.memory_mib),
    )
