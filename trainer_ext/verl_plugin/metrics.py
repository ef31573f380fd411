"""Metrics of the influence trace: their names, how ranks combine, and the line that says what runs.

verl reduces metrics by substrings of their names (max, min, sum, total, lr); names here avoid those, and the driver sets them
without a prefix, because what a worker returns from an update gains `actor/`. The figures of memory are set once a step, after
that reduction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from trainer_ext.influence import InfluenceConfig
from trainer_ext.memory import GIB, MemoryPeaks
from trainer_ext.verl_plugin import similarity

ROWS = "influence_trace/rows_emitted"
"""Responses in this step's file, with and without a contrast."""
TOKENS = "influence_trace/debug_capture_selected_tokens"
"""Response tokens whose gradients were captured."""
SCORED_TOKENS = "influence_trace/scored_tokens"
"""Captured tokens whose group had a contrast."""
RESIDUAL = "influence_trace/solver_residual"

# Peaks since the step before, the largest of all ranks, in GiB (1024^3): `gb` is what everybody calls it.
PHYSICAL = "perf/physical_memory_peak_gb"
"""In use on a GPU, by all processes; on a CPU, by the job's processes."""
ALLOCATED = "perf/max_memory_allocated_gb"
"""torch's own count in one process; can exceed the card."""
HOST = "perf/host_memory_peak_gb"
"""Of a node's host memory, by the job's processes on it together, pinned memory included."""
RANK_HOST = "perf/rank_host_memory_peak_gb"
"""Of host memory, by the process of one rank, pinned memory included."""


def setup_line(config: InfluenceConfig, settings: Mapping[str, Any]) -> str:
    """One console line with every setting, a word each, so that a log says by itself what ran."""
    values = {**settings, **dataclasses.asdict(config)}
    return "[influence_trace] setup " + " ".join(f"{name}={_word(value)}" for name, value in values.items())


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def memory_metrics(ranks: Sequence[MemoryPeaks]) -> dict[str, float]:
    """The memory of a step by metric name; what was measured on no rank is left out."""
    node = [peaks.node for peaks in ranks]
    devices = [peaks.device for peaks in ranks]
    bytes_by_name = {
        PHYSICAL: devices if any(used is not None for used in devices) else node,
        ALLOCATED: [peaks.allocated for peaks in ranks],
        HOST: node,
        RANK_HOST: [peaks.process for peaks in ranks],
    }
    known = {name: [value for value in values if value is not None] for name, values in bytes_by_name.items()}
    return {name: max(values) / GIB for name, values in known.items() if values}


def combine_ranks(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One report of a step out of the ranks': counts add up, times are the slowest's.

    A report holds `tokens`, `scored_tokens`, `timing` (seconds by phase), `modules` (name -> k_in, k_out, route, residual), and
    `similarity`, a `RankComparison`, where one was asked for; of all ranks it is what `similarity.combined` makes of them.
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
        "modules": modules,
        **_similarity(reports, modules),
    }


def _similarity(reports: Sequence[Mapping[str, Any]], modules: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if "similarity" not in reports[0]:
        return {}
    dims = {name: (module["k_in"], module["k_out"]) for name, module in modules.items()}
    return {"similarity": similarity.combined([report["similarity"] for report in reports], dims)}
