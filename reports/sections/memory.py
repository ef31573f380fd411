"""Memory of the results table: the device's own figure, never one that triage calls unreliable.

torch's counters can exceed the card: they go on counting an engine's memory pool whose pages were unmapped behind
torch's back. Where a run is flagged for that, the cell shows what was sampled on the device, and a footnote says what
torch had claimed. Where nothing was sampled, torch's figure is all there is: it stays in the cell, marked.

verl's figure of host memory is the whole node's. Where it is above what the job's control group allows, a footnote says
so beside the cell, which shows what the job itself was seen to hold.
"""

from __future__ import annotations

from collections.abc import Sequence

from reports import metrics
from reports.markdown import Column, code
from reports.numbers import GIB, gib
from reports.snapshot import PointSnapshot

UNRELIABLE = "memory_metric_unreliable"
_MARK = r"\*"
_HOST_MARK = "†"
_MOST_CLAIMS = 6
"""Of a footnote; of more jobs, how many."""


def memory_columns(points: Sequence[PointSnapshot]) -> list[Column]:
    return [
        Column("GPU memory (GiB)", [_gpu_cell(point) for point in points], numeric=True),
        Column("Host memory (GiB)", [_host_cell(point) for point in points], numeric=True),
    ]


def footnote(points: Sequence[PointSnapshot]) -> str:
    """What was claimed where it cannot be believed; empty when every figure can."""
    gpu, host = [p for p in points if is_marked(p)], [p for p in points if _is_host_marked(p)]
    notes = []
    if gpu:
        notes.append(
            f"{_MARK} torch's `max_memory_allocated` is no measurement of memory in these runs: "
            f"{_listed(list(map(_claim, gpu)))}. Cells show the device's own peak where one was sampled, else torch's figure."
        )
    if host:
        notes.append(
            f"{_HOST_MARK} Host memory above what the control group allows is not this job's alone: "
            f"{_listed(list(map(_host_claim, host)))}. Cells show what the job itself was seen to hold."
        )
    return "\n\n".join(notes)


def _listed(claims: Sequence[str]) -> str:
    rest = len(claims) - _MOST_CLAIMS
    return "; ".join(claims[:_MOST_CLAIMS]) + (f"; and {rest:,} more" if rest > 0 else "")


def _gpu_cell(point: PointSnapshot) -> str:
    """The device's peak, else torch's; marked where torch's is flagged.

    On a machine without GPUs the job reports its own memory under the same names: that is no GPU's.
    """
    if not had_gpu(point):
        return ""
    torch_gib = metrics.peak(point, metrics.TORCH_PEAK_GIB)
    physical = device_peak_bytes(point)
    shown = physical if physical is not None else torch_gib * GIB if torch_gib is not None else None
    return "" if not shown else gib(shown) + (_MARK if is_marked(point) else "")


def _host_cell(point: PointSnapshot) -> str:
    host = host_peak_bytes(point)
    return gib(host) + (_HOST_MARK if _is_host_marked(point) else "") if host else ""


def had_gpu(point: PointSnapshot) -> bool:
    pools = any(attempt.pool for attempt in point.attempts)
    return pools or point.card_bytes is not None or point.gpu_peak_bytes is not None


def is_marked(point: PointSnapshot) -> bool:
    """torch's figure is above something that cannot be exceeded, or flagged where nothing to compare it with is left."""
    torch_gib = metrics.peak(point, metrics.TORCH_PEAK_GIB)
    if not point.has_anomaly(UNRELIABLE) or torch_gib is None:
        return False
    most = [size for size in (point.card_bytes, device_peak_bytes(point)) if size]
    return any(torch_gib * GIB > size for size in most) or (not most and not _is_host_marked(point))


def _is_host_marked(point: PointSnapshot) -> bool:
    limit = point.host_limit_bytes
    return point.has_anomaly(UNRELIABLE) and limit is not None and (_host_claimed(point) or 0.0) > limit


def _host_claimed(point: PointSnapshot) -> float | None:
    """Bytes: verl's figure of the whole node, or what the job's processes were seen to hold."""
    return _largest(point.host_peak_bytes, metrics.peak(point, metrics.NODE_USED_GIB))


def _host_claim(point: PointSnapshot) -> str:
    claimed, limit = _host_claimed(point) or 0.0, point.host_limit_bytes or 0
    return f"{code(point.name)} {gib(claimed)} GiB (its group allows {gib(limit)})"


def _claim(point: PointSnapshot) -> str:
    torch_gib = metrics.peak(point, metrics.TORCH_PEAK_GIB) or 0.0
    physical = device_peak_bytes(point)
    against = [f"the device saw {gib(physical)}"] if physical is not None else []
    against += [f"the card has {gib(point.card_bytes)}"] if point.card_bytes else []
    return f"{code(point.name)} {gib(torch_gib * GIB)} GiB" + (f" ({', '.join(against)})" if against else "")


def device_peak_bytes(point: PointSnapshot) -> float | None:
    """Bytes the device was seen to hold at most."""
    return _largest(point.gpu_peak_bytes, metrics.peak(point, metrics.PHYSICAL_PEAK_GIB))


def host_peak_bytes(point: PointSnapshot) -> float | None:
    """Bytes a node was seen to hold at most; the wrapper sees its own node alone."""
    return _largest(point.host_peak_bytes, metrics.peak(point, metrics.HOST_PEAK_GIB))


def _largest(beside: float | None, inside_gib: float | None) -> float | None:
    """Of what was sampled beside the job, in bytes, and inside it, in GiB: both may miss a peak, neither invents one."""
    inside = inside_gib * GIB if inside_gib else None
    return max((value for value in (beside, inside) if value is not None), default=None)
