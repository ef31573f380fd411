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


def process_tree_bytes(root: psutil.Process) -> int:
    """Proportional set size of a process and all below it: pages that several of them share count once."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it ended meanwhile, or belongs to someone else
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


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


class PeakSampler:
    """Keeps the largest reading of a background thread since the last `read`.

    Args:
        measure: returns bytes; called about once every `interval_s` seconds, and at `read`.
    """

    def __init__(self, measure: Callable[[], int], interval_s: float = SAMPLE_INTERVAL_S) -> None:
        self._measure, self._interval_s = measure, interval_s
        self._peak = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-peak", daemon=True)

    def start(self) -> PeakSampler:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def read(self) -> int:
        """The peak since the last call, this moment included."""
        now = self._measure()
        with self._lock:
            peak, self._peak = max(self._peak, now), 0
        return peak

    def _sample(self) -> None:
        while not self._stopped.wait(self._interval_s):
            now = self._measure()
            with self._lock:
                self._peak = max(self._peak, now)
