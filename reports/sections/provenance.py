"""What the figures were made with: versions here, and the nodes' hardware, driver, image and packages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reports.markdown import code, text
from reports.sections.points import jobs, tried
from reports.snapshot import HardwareSnapshot, PointSnapshot, SweepSnapshot

_OF_NODES: tuple[tuple[str, Callable[[HardwareSnapshot], str]], ...] = (
    ("GPU", lambda node: f"{node.gpus} × {node.gpu}" if node.gpu else ""),
    ("Driver", lambda node: node.driver or ""),
    ("Image", lambda node: node.image or ""),
    ("Packages of the jobs (sha256)", lambda node: node.packages_sha256 or ""),
)


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    rows = [(text(key), code(value)) for key, value in snapshot.environment.items() if value]
    rows += [("Backend", code(snapshot.backend))] if snapshot.backend else []
    rows += [(title, cell) for title, told in _OF_NODES if (cell := _over_jobs(tried(snapshot), told))]
    return {"rows": rows} if rows else None


def _over_jobs(points: list[PointSnapshot], told: Callable[[HardwareSnapshot], str]) -> str:
    """The common value; where jobs differ, each with whose it is."""
    by_value: dict[str, list[PointSnapshot]] = {}
    for point in points:
        if point.hardware and (value := told(point.hardware)):
            by_value.setdefault(value, []).append(point)
    if len(by_value) == 1 and len(next(iter(by_value.values()))) == len(points):
        return code(next(iter(by_value)))
    return "; ".join(f"{code(value)} ({jobs(found, len(points))})" for value, found in by_value.items())
