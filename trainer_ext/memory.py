"""Memory of one rank as peaks, each since it was last read: what its GPU holds, what torch counts, what the host holds.

A GPU's memory is sampled on the device. So every process counts, a rollout server's too, and only pages that exist do. torch's
counters are neither: they are of one process, and where an engine unmaps its pages while it sleeps, they go on counting them
and can exceed the card. `max_memory_reserved` is as wrong, and says nothing that a sample does not: what torch has reserved
the device holds.

What sampling misses is memory that was taken from the driver and given back between two samples. What torch frees is not given
back: it stays in torch's cache, and in the device's figure, until the cache is emptied. Trainers do that between phases, so one
more sample is taken at the end of a phase. A thread waits for Python's lock: a call that keeps it makes the interval longer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

import psutil
import torch

from trainer_ext.host_memory import ProcessTree, job_root, take_resident_peak

GIB = 1024**3

DEVICE_INTERVAL_S = 0.05
HOST_INTERVAL_S = 1.0


@dataclass(frozen=True)
class MemoryPeaks:
    """Bytes, each the most since the reading before; None: not measured on this rank."""

    device: int | None
    """In use on the rank's GPU, by all processes."""
    allocated: int | None
    """torch's own `max_memory_allocated`, of this process."""
    process: int
    """Resident in the host's memory, of this process."""
    node: int | None
    """Held in the host's memory by the job's processes on this node together."""


class RankMemory:
    """Watches the memory of the rank that it is made on, from then on.

    Args:
        device: index of the rank's GPU; None: it has none.
        watches_node: whether it watches the job's other processes on the node too; one rank a node does.
    """

    def __init__(self, device: int | None, *, watches_node: bool) -> None:
        self._device = device
        self._on_device = self._on_node = None
        if device is not None:
            self._on_device = PeakSampler(partial(device_used_bytes, device), DEVICE_INTERVAL_S).start()
        if watches_node:
            self._on_node = PeakSampler(ProcessTree.below(job_root(psutil.Process())), HOST_INTERVAL_S).start()

    def sample(self) -> None:
        """Look at the device now, since a phase has ended."""
        if self._on_device:
            self._on_device.sample()

    def take(self) -> MemoryPeaks:
        """The peaks since the last call; they begin anew, torch's too."""
        allocated = None
        if self._device is not None:
            allocated = torch.cuda.max_memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        return MemoryPeaks(
            device=self._on_device.take() if self._on_device else None,
            allocated=allocated,
            process=take_resident_peak(),
            node=self._on_node.take() if self._on_node else None,
        )

    def stop(self) -> None:
        for sampler in (self._on_device, self._on_node):
            if sampler:
                sampler.stop()


def device_used_bytes(device: int) -> int:
    """Memory of a GPU that is in use, as the driver sees it: all processes, and physical pages only.

    The device is named, because a thread begins on device 0, whatever its process has chosen.
    """
    free, total = torch.cuda.mem_get_info(device)
    return total - free


class PeakSampler:
    """Keeps the largest reading of a background thread.

    Args:
        measure: returns bytes; called about every `interval_s` seconds from `start` on, and at `sample` and `take`.
    """

    def __init__(self, measure: Callable[[], int], interval_s: float) -> None:
        self._measure, self._interval_s = measure, interval_s
        self._peak = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-peak", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def sample(self) -> None:
        with self._lock:
            self._peak = max(self._peak, self._measure())

    def take(self) -> int:
        """The largest reading since the last call, this moment included. The next peak begins with what is held now."""
        with self._lock:
            now = self._measure()
            peak, self._peak = max(self._peak, now), now
        return peak

    def _run(self) -> None:
        try:
            while not self._stopped.wait(self._interval_s):
                self.sample()
        except RuntimeError:
            return  # the device is lost; the thread that works on it fails of the same error, and says where
