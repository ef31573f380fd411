"""Memory that leaves little room: what was held beside what there is."""

from __future__ import annotations

from reports.contrasts import Grid
from reports.findings.finding import Finding, metric_places, share, timed_step
from reports.findings.memory import host_bytes
from reports.markdown import code
from reports.numbers import gib
from reports.sections.memory import device_peak_bytes, had_gpu, host_peak_bytes
from reports.snapshot import PointSnapshot

HOST_SHARE = 0.85
"""Of what the control group allows; a node is shared with its page cache."""
CARD_SHARE = 0.95
"""Of the card's physical memory; allocators fill a card up on purpose."""


def host_nearly_full(grid: Grid) -> list[Finding]:
    """The point that came nearest to what its control group allows, where that is near."""
    known = [
        (point, held / point.host_limit_bytes)
        for point in grid.points
        if (held := host_bytes(point)) and point.host_limit_bytes
    ]
    near = [(point, part) for point, part in known if HOST_SHARE <= part <= 1]
    if not near:
        return []
    point, part = max(near, key=lambda one: one[1])
    whose = "" if host_peak_bytes(point) is not None else ", as verl sees the whole node"
    sentence = (
        f"**Host memory is high**: {code(point.name)} saw {gib(host_bytes(point) or 0)} GiB in use{whose}, {share(part)} of "
        f"the {gib(point.host_limit_bytes or 0)} GiB that the job may hold. A smaller node may not fit{_others(len(near))}."
    )
    return [Finding(sentence, metric_places([point], timed_step(grid)))]


def card_nearly_full(grid: Grid) -> list[Finding]:
    """The point that left least of its card, by the device's own figure."""
    known = [
        (point, held / point.card_bytes) for point in grid.points if (held := _on_card(point)) and point.card_bytes
    ]
    near = [(point, part) for point, part in known if CARD_SHARE <= part <= 1]
    if not near:
        return []
    point, part = max(near, key=lambda one: one[1])
    rest = (point.card_bytes or 0) - (_on_card(point) or 0)
    sentence = (
        f"**GPU memory is nearly full**: {code(point.name)} held {gib(_on_card(point) or 0)} GiB, {share(part)} of the card, "
        f"and left {gib(rest)} GiB{_others(len(near))}."
    )
    return [Finding(sentence, metric_places([point], timed_step(grid)))]


def _on_card(point: PointSnapshot) -> float | None:
    return device_peak_bytes(point) if had_gpu(point) else None


def _others(near: int) -> str:
    return f"; {near - 1} more came near" if near > 1 else ""
