"""What several sections say about points in the same words: the columns that name a point, and lists of jobs."""

from __future__ import annotations

from collections.abc import Sequence

from reports.markdown import Column, code, codes
from reports.sections.patches import MARK, is_patched
from reports.snapshot import PointSnapshot, Scalar, SweepSnapshot

_MOST_NAMED = 6


def scalar(value: Scalar) -> str:
    """A parameter as it stands in a sweep file: true, null, 1e-06."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def job_columns(snapshot: SweepSnapshot, points: Sequence[PointSnapshot]) -> list[Column]:
    """The job's name, then one column for each axis that varies over the sweep."""
    return [
        Column("Job", [code(point.name) + (f" {MARK}" if is_patched(point) else "") for point in points]),
        *(
            Column(
                code(axis),
                [code(scalar(point.parameters[axis])) if axis in point.parameters else "" for point in points],
            )
            for axis in varying_axes(snapshot)
        ),
    ]


def axis_values(snapshot: SweepSnapshot, axis: str) -> list[str]:
    """Distinct values of an axis in order of first appearance."""
    return list(dict.fromkeys(scalar(p.parameters[axis]) for p in snapshot.points if axis in p.parameters))


def varying_axes(snapshot: SweepSnapshot) -> list[str]:
    """Axes with several values; not those that only give each point a name, where others vary."""
    varying = [axis for axis in snapshot.axes if len(axis_values(snapshot, axis)) > 1]
    return [axis for axis in varying if not _names_points(snapshot, axis)] or varying


def _names_points(snapshot: SweepSnapshot, axis: str) -> bool:
    """Its levels are what the points are called: that explains nothing."""
    return all(point.parameters.get(axis) == point.name for point in snapshot.points)


def fixed_settings(snapshot: SweepSnapshot) -> list[str]:
    """`axis=value` of the axes with one value, then the sweep's fixed overrides."""
    constant = [(axis, axis_values(snapshot, axis)) for axis in snapshot.axes]
    return [f"{axis}={values[0]}" for axis, values in constant if len(values) == 1] + list(snapshot.overrides)


def tried(snapshot: SweepSnapshot) -> list[PointSnapshot]:
    """Points of which something ran."""
    return [point for point in snapshot.points if point.attempts or point.metrics or point.npz]


def pool_of(point: PointSnapshot) -> str:
    """Where the deciding attempt ran; empty where there are no pools."""
    return (point.attempts[-1].pool or "") if point.attempts else ""


def jobs(points: Sequence[PointSnapshot], total: int) -> str:
    """Their names; "all jobs" where that is said shorter."""
    if len(points) == total > 1:
        return f"all {total} jobs"
    named = codes(point.name for point in points[:_MOST_NAMED])
    return f"{named} and {len(points) - _MOST_NAMED} more" if len(points) > _MOST_NAMED else named
