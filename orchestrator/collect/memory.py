"""Peaks out of `memory.jsonl`, line by line: a week of samples is a gigabyte."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from trainer_ext.records import MemorySample


@dataclass(frozen=True)
class MemoryFacts:
    """Sizes in bytes; None where the machine could not tell."""

    samples: int = 0
    gpu_peak: int | None = None
    """Most memory in use on any one card, by NVML."""
    card: int | None = None
    """Physical memory of the smallest card."""
    host_peak: int | None = None
    host_limit: int | None = None
    oom_kills: int | None = None


def read_memory(path: Path) -> MemoryFacts:
    """The peaks of a whole file. Lines that are no samples are left out; a file that does not exist has none."""
    try:
        with path.open("rb") as file:
            return _peaks(file)
    except FileNotFoundError:
        return MemoryFacts()


def _peaks(lines: Iterable[bytes]) -> MemoryFacts:
    samples = 0
    gpu, cgroup, pss, limit, kills, card = _Peak(), _Peak(), _Peak(), _Peak(), _Peak(), _Peak()
    for line in lines:
        try:
            sample = MemorySample.from_json(line)
            gpu.see(*sample.gpu_used)
            card.see(*(-total for total in sample.gpu_total))
            cgroup.see(sample.cgroup_current, sample.cgroup_peak)
            pss.see(sample.process_pss)
            limit.see(sample.cgroup_limit)
            kills.see(sample.oom_kill)
        except (ValueError, TypeError):
            continue
        samples += 1
    return MemoryFacts(
        samples=samples,
        gpu_peak=gpu.value,
        card=None if card.value is None else -card.value,
        # a cgroup may be shared with others and be older than the job; the job's own processes are not
        host_peak=cgroup.value if pss.value is None else pss.value,
        host_limit=limit.value,
        oom_kills=kills.value,
    )


class _Peak:
    def __init__(self) -> None:
        self.value: int | None = None

    def see(self, *values: int | None) -> None:
        known = [value for value in (*values, self.value) if value is not None]
        self.value = max(known, default=None)
