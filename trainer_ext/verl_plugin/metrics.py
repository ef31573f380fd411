"""Metrics of the influence trace: their names, how ranks combine, and peaks of physical memory.

verl reduces metrics by substrings of their names (max, min, sum, total, lr); names here avoid those, and the driver sets them
without a prefix, because what a worker returns from an update gains `actor/`.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from trainer_ext.influence import InfluenceConfig

GIB = 1024**3

ROWS = "influence_trace/rows_emitted"
"""Responses in this step's file, with and without a contrast."""
TOKENS = "influence_trace/debug_capture_selected_tokens"
"""Response tokens whose gradients were captured."""
SCORED_TOKENS = "influence_trace/scored_tokens"
"""Captured tokens whose group had a contrast."""
RESIDUAL = "influence_trace/solver_residual"
MEMORY = "perf/physical_memory_peak_gb"

SAMPLE_INTERVAL_S = 1.0


def setup_line(config: InfluenceConfig, settings: Mapping[str, Any]) -> str:
    """One console line with every setting, so that a log says by itself what ran."""
    values = {**settings, **dataclasses.asdict(config)}
    return "[influence_trace] setup " + " ".join(f"{name}={value}" for name, value in values.items())


def combine_ranks(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One report of a step out of the ranks': counts add up, times and peaks are the slowest's and largest's.

    A report holds `tokens`, `scored_tokens`, `timing` (seconds by phase), `memory_peak_bytes` and `modules`
    (name -> k_in, k_out, route, residual).
    """
    modules: dict[str, dict[str, Any]] = {}
    for report in reports:
        for name, module in report["modules"].items():
            known = modules.setdefault(name, dict(module))
            known["residual"] = max((r for r in (known["residual"], module["residual"]) if r is not None), default=None)
    return {
        "tokens": sum(report["tokens"] for report in reports),
        "scored_tokens": sum(report["scored_tokens"] for report in reports),
        "timing": {phase: max(report["timing"][phase] for report in reports) for phase in reports[0]["timing"]},
        "memory_peak_bytes": max(report["memory_peak_bytes"] for report in reports),
        "modules": modules,
    }


def job_root(process: psutil.Process) -> psutil.Process:
    """The process that started Ray, seen from one of Ray's workers: the parent of the raylet above it."""
    for ancestor in process.parents():
        if ancestor.name() == "raylet":
            return ancestor.parent() or ancestor
    return process


def device_used_bytes() -> int:
    """Used memory of this rank's GPU as the driver sees it: all processes, and physical pages only.

    torch's own counters are not that. Where an engine unmaps its pages while asleep, they go on counting them.
    """
    free, total = torch.cuda.mem_get_info()
    return total - free


class ProcessTree:
    """Memory of a process and all below it, as proportional set size: pages that several of them share count once.

    Reading that figure walks every page table and takes a tenth of a second for a job. So it is read only when the resident
    sizes, which cost nothing to read and are never smaller, add up to more than they did at any reading before.
    """

    def __init__(self, root: psutil.Process, proc: Path = Path("/proc")) -> None:
        self._root, self._proc = root, proc
        self._most_resident = self._peak = 0

    def peak_bytes(self) -> int:
        """The largest figure so far, this moment included."""
        pids = [self._root.pid, *(child.pid for child in self._root.children(recursive=True))]
        resident = sum(self._kib(pid, "status", "VmRSS:") for pid in pids)
        if resident > self._most_resident:
            self._most_resident = resident
            self._peak = max(self._peak, 1024 * sum(self._kib(pid, "smaps_rollup", "Pss:") for pid in pids))
        return self._peak

    def _kib(self, pid: int, file: str, field: str) -> int:
        try:
            lines = (self._proc / str(pid) / file).read_text().splitlines()
        except OSError:  # it ended meanwhile, or belongs to someone else
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith(field)), 0)


class PeakSampler:
    """Keeps the largest reading of a background thread.

    Args:
        measure: returns bytes; called about once every `interval_s` seconds, and at `peak`.
    """

    def __init__(self, measure: Callable[[], int], interval_s: float = SAMPLE_INTERVAL_S) -> None:
        self._measure, self._interval_s = measure, interval_s
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-peak", daemon=True)

    def start(self) -> PeakSampler:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def peak(self) -> int:
        """The largest reading since `start`, this moment included."""
        self._peak = max(self._peak, self._measure())
        return self._peak

    def _sample(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self.peak()
