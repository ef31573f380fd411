"""One line of `memory.jsonl`: what the job holds now, on the cards and in host memory.

The cgroup says the most (peak, limit, kills) but may be shared: on a workstation it is the whole login session. The
proportional set size of the process tree is the job's own, and dear: the kernel walks every page table, holding the
lock that the job needs to map memory. It is therefore read only as often as it stays below a small share of one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil

from orchestrator.clock import Clock
from orchestrator.job import cgroup
from orchestrator.job.nvml import Card, Nvml
from trainer_ext.records import MemorySample

PSS_SHARE = 0.01
"""Share of one core that measuring the proportional set size may cost."""
IDLE_PERCENT = 5
"""A card below this does nothing that trains."""
IDLE_STALE_S = 30.0
"""A driver that answered longer ago than this says nothing about now."""


class MemorySampler:
    """Appends a `MemorySample` to a file each time it is called.

    Args:
        path: `memory.jsonl`.
        group: the control group to read, or None.
        oom_kills_before: its counter when the job began.
        visible_devices: the job's CUDA_VISIBLE_DEVICES.
        tree_pss: the job's proportional set size in bytes, or None where it was not measured this time.
    """

    def __init__(
        self,
        path: Path,
        *,
        group: cgroup.Cgroup | None,
        oom_kills_before: int,
        visible_devices: str | None,
        tree_pss: Callable[[], int | None],
        clock: Clock,
    ) -> None:
        self._path, self._group, self._clock = path, group, clock
        self._oom_kills_before = oom_kills_before
        self._visible_devices = visible_devices
        self._tree_pss = tree_pss
        self._nvml: Nvml | None = None
        self.idleness = Idleness()

    def __call__(self) -> None:
        sample = self.sample()
        self.idleness.see(sample.gpu_busy, time.monotonic())
        with self._path.open("a") as file:
            file.write(sample.to_json() + "\n")

    def sample(self) -> MemorySample:
        if self._nvml is None:  # not in __init__: a sick driver may block, and must block the sampler alone
            self._nvml = Nvml(self._visible_devices)
        return compose(
            now=self._clock.now(),
            cards=self._nvml.cards(),
            host=cgroup.read(self._group) if self._group else cgroup.CgroupMemory(),
            oom_kills_before=self._oom_kills_before,
            pss=self._tree_pss(),
        )


def compose(
    *, now: float, cards: Iterable[Card], host: cgroup.CgroupMemory, oom_kills_before: int, pss: int | None
) -> MemorySample:
    """The record of one moment; kills by the kernel count from the job's beginning."""
    cards = list(cards)
    return MemorySample(
        time=now,
        gpu_used=[card.used for card in cards],
        gpu_total=[card.total for card in cards],
        gpu_busy=[card.busy for card in cards],
        cgroup_current=host.current,
        cgroup_peak=host.peak,
        cgroup_limit=host.limit,
        oom_kill=None if host.oom_kill is None else host.oom_kill - oom_kills_before,
        process_pss=pss,
    )


class Idleness:
    """Since when no card has done anything."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._seen_at = float("-inf")

    def see(self, busy: Sequence[int | None], now: float) -> None:
        """Args: percent of the time in which a kernel ran, by card; seconds on a clock that never goes back."""
        self._seen_at = now
        idle = bool(busy) and all(percent is not None and percent < IDLE_PERCENT for percent in busy)
        self._since = (now if self._since is None else self._since) if idle else None

    def since(self, now: float) -> float | None:
        """None: a card does something, or nobody can tell any more."""
        return self._since if now - self._seen_at < IDLE_STALE_S else None


class TreePss:
    """Proportional set size of all descendants of this process, rationed to a share of one core.

    Args:
        processes: ids of the processes to add up.
        share: CPU time it may take per second of wall time.
        cpu, monotonic: seconds of CPU time of this thread, and of a clock that never goes back.
    """

    def __init__(
        self,
        processes: Callable[[], Iterable[int]],
        *,
        share: float = PSS_SHARE,
        proc: Path = Path("/proc"),
        cpu: Callable[[], float] = time.thread_time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processes, self._share, self._proc = processes, share, proc
        self._cpu, self._monotonic = cpu, monotonic
        self._next_at = 0.0

    def __call__(self) -> int | None:
        """Bytes, or None when it is not due or nothing could be read."""
        if self._monotonic() < self._next_at:
            return None
        begun = self._cpu()
        sizes = [size for pid in self._processes() if (size := read_pss(self._proc / str(pid))) is not None]
        self._next_at = self._monotonic() + (self._cpu() - begun) / self._share
        return sum(sizes) if sizes else None


def read_pss(process: Path) -> int | None:
    """`Pss` of one process in bytes, from its folder in /proc; None where it ended or the kernel does not tell."""
    try:
        text = (process / "smaps_rollup").read_text()
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), None)
    return int(line.split()[1]) * 1024 if line else None


def descendant_pids() -> list[int]:
    """Everything below this process: as a subreaper it is above all that the job ever started."""
    return [process.pid for process in psutil.Process().children(recursive=True)]
