"""Who needed the larger card, which figures of memory cannot be, and what a level costs in memory."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from reports import metrics
from reports.contrasts import Compared, Grid, listed
from reports.findings.finding import (
    Finding,
    attempt_places,
    level,
    metric_places,
    over_replicates,
    per_pair,
    ratio,
    timed_step,
)
from reports.markdown import code
from reports.numbers import GIB, gib, plural
from reports.ratios import Ratio, largest, ratios
from reports.sections.memory import UNRELIABLE, device_peak_bytes, had_gpu, host_peak_bytes
from reports.sections.points import jobs
from reports.snapshot import PointSnapshot

_MOST_MOVED = 4
_WORTH_TELLING = 0.05
"""Relative growth of memory below which nobody plans otherwise."""
_LEAST_BYTES = 0.25 * GIB
"""And the growth itself: jobs that hold next to nothing differ by what their interpreters happen to."""
_MEMORY = ("gpu_oom", "host_oom")


def larger_pool(grid: Grid) -> list[Finding]:
    """Points that ran out of memory on one pool and completed on another: one sentence for each, or for all of many."""
    moved = [(point, failed) for point in grid.snapshot.points if (failed := _out_of_memory_before(point))]
    if len(moved) <= _MOST_MOVED:
        return [
            Finding(_moved(grid, point, failed), attempt_places([point], timed_step(grid))) for point, failed in moved
        ]
    points = [point for point, _ in moved]
    ways = dict.fromkeys(f"{code(failed)} to {code(str(point.attempts[-1].pool))}" for point, failed in moved)
    sentence = (
        f"**{len(moved)} of {plural(len(grid.snapshot.points), 'point')} needed a larger pool**: they ran out of memory and "
        f"completed after the move from {listed(list(ways))} ({jobs(points, len(grid.snapshot.points))})."
    )
    return [Finding(sentence, attempt_places(points, timed_step(grid)))]


def beyond_physics(grid: Grid) -> list[Finding]:
    """torch's peak above the physical memory of the card: no measurement of it."""
    snapshot = grid.snapshot
    found = [(point, peak) for point in snapshot.points if (peak := _impossible_gib(point)) is not None]
    if not found:
        return []
    points = [point for point, _ in found]
    peaks = list(dict.fromkeys(f"{peak:.1f}" for _, peak in sorted(found, key=lambda one: one[1])))
    cards = sorted({point.card_bytes for point in points if point.card_bytes})
    low_to_high = peaks[0] if len(peaks) == 1 else f"{peaks[0]} to {peaks[-1]}"
    lived = sum(point.state == "succeeded" and not _out_of_memory_before(point) for point in points)
    completed = f"; {lived} of {len(points)} completed without running out of it" if lived else ""
    sentence = (
        f"**torch's memory peak is beyond the card** in {jobs(points, len(snapshot.points))}: `max_memory_allocated` claims "
        f"{low_to_high} GiB where the card has {listed([gib(card) for card in cards])} GiB. It is no measurement of "
        f"memory{completed}."
    )
    return [Finding(sentence, metric_places(points, timed_step(grid)))]


def memory_of_levels(grid: Grid) -> list[Finding]:
    """For each axis the largest growth of host memory from one level to the next, and of the card's."""
    found = []
    for axis in grid.factors:
        for what, measure in (("host memory", host_bytes), ("GPU memory", gpu_bytes)):
            most = largest(ratios(grid, axis, measure), 1 + _WORTH_TELLING)
            if most is not None and fmean(pair.level - pair.reference for pair in most.pairs) >= _LEAST_BYTES:
                found.append(_growth(grid, what, most))
    return found


def host_bytes(point: PointSnapshot) -> float | None:
    """What the job held; where nobody looked, what the whole node did."""
    own = host_peak_bytes(point)
    node = metrics.peak(point, metrics.NODE_USED_GIB)
    return own if own is not None else node * GIB if node is not None else None


def gpu_bytes(point: PointSnapshot) -> float | None:
    """What the device saw; torch's figure where it is all there is and nothing speaks against it; None without a GPU."""
    if not had_gpu(point):
        return None
    physical, torch_gib = device_peak_bytes(point), metrics.peak(point, metrics.TORCH_PEAK_GIB)
    if physical is not None:
        return physical
    return torch_gib * GIB if torch_gib is not None and not point.has_anomaly(UNRELIABLE) else None


def _growth(grid: Grid, what: str, found: Ratio) -> Finding:
    contrast, pairs, axis = found.contrast, found.pairs, found.contrast.axis
    figures = [f"{gib(pair.level)} GiB against {gib(pair.reference)} GiB" for pair in pairs]
    other = level(axis, contrast.reference).removeprefix(f"{code(axis)} ")
    sentence = (
        f"**{level(axis, contrast.level)} holds {ratio(found.mean)} the {what} of {other}** "
        f"({per_pair(grid, axis, pairs, figures)}{over_replicates(found)}{_of_node(what, pairs)})."
    )
    points = [point for pair in pairs for point in pair.pair]
    return Finding(sentence, metric_places(points, timed_step(grid)))


def _of_node(what: str, pairs: Sequence[Compared]) -> str:
    """verl's figure is not the job's alone."""
    foreign = any(host_peak_bytes(point) is None for pair in pairs for point in pair.pair)
    return "; as verl sees the whole node" if what == "host memory" and foreign else ""


def _moved(grid: Grid, point: PointSnapshot, failed: str) -> str:
    pool = str(point.attempts[-1].pool)
    card = f" ({gib(point.card_bytes)} GiB a card)" if point.card_bytes else ""
    where = grid.setting(point)
    others = [
        other for other in grid.points if other is not point and other.attempts and other.attempts[-1].pool == failed
    ]
    words = (
        f"**{code(point.name)} needed the larger pool**: it ran out of {_what(point)} on {code(failed)} and completed on "
        f"{code(pool)}{card}" + (f", at {code(where)}" if where else "")
    )
    return words + (f". {plural(len(others), 'other point')} completed on {code(failed)}." if others else ".")


def _what(point: PointSnapshot) -> str:
    verdicts = {attempt.verdict for attempt in point.attempts[:-1]}
    return "GPU memory" if "gpu_oom" in verdicts else "host memory"


def _out_of_memory_before(point: PointSnapshot) -> str | None:
    """The pool that was too small for a point which another one sufficed for."""
    if point.state != "succeeded" or not point.attempts or point.attempts[-1].pool is None:
        return None
    last = point.attempts[-1].pool
    tries = [attempt.pool for attempt in point.attempts[:-1] if attempt.verdict in _MEMORY]
    return next((pool for pool in reversed(tries) if pool is not None and pool != last), None)


def _impossible_gib(point: PointSnapshot) -> float | None:
    peak = metrics.peak(point, metrics.TORCH_PEAK_GIB)
    beyond = peak is not None and point.card_bytes is not None and peak * GIB > point.card_bytes
    return peak if beyond and point.has_anomaly(UNRELIABLE) else None
