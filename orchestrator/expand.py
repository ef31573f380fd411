"""From a sweep file to its points: the grid, crossed with what moves together, crossed with replicates. Pure.

Order: the first-named axis varies slowest, replicates fastest; the points of `include` follow. `exclude` drops points
of the product alone: what `include` names is wanted by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from orchestrator import expression
from orchestrator.errors import SpecError
from orchestrator.model import Scalar
from orchestrator.naming import AmbiguousName, default_template, point_names, with_replicates
from orchestrator.overrides import assignment
from orchestrator.spec_model import SweepSpec

MAX_POINTS = 100_000
"""A product beyond this is a slip of the pen, not an experiment."""

Assignments = dict[str, Scalar]


@dataclass(frozen=True)
class RawPoint:
    """One point before its configuration is composed."""

    index: int
    name: str
    parameters: Assignments
    """By short name, replicate axes included."""
    replicate: Assignments
    overrides: tuple[str, ...]
    """The sweep's own, then one for each parameter."""


def expand(spec: SweepSpec) -> tuple[RawPoint, ...]:
    """All points of a sweep in a fixed order.

    Raises:
        SpecError: every point is excluded, there are too many, an exclude expression cannot be evaluated, or `job_name`
            gives two points one name.
    """
    points = [*_kept(spec, _product(spec)), *(dict(point) for point in spec.include)]
    if not points:
        raise spec.error(("exclude",), "no point is left: every one is excluded")
    names = _names(spec, points)
    return tuple(
        RawPoint(
            index=index,
            name=name,
            parameters=point,
            replicate={axis: point[axis] for axis in spec.replicates if axis in point},
            overrides=(*spec.overrides, *(assignment(spec.target(key), value) for key, value in point.items())),
        )
        for index, (name, point) in enumerate(zip(names, points, strict=True))
    )


def _product(spec: SweepSpec) -> Iterator[Assignments]:
    """Grid x zip x replicates. Without any axis it is one point, or none where `include` names some."""
    axes = [
        *([{name: value} for value in values] for name, values in spec.parameters.items()),
        *(_rows(columns) for columns in spec.zip.values()),
        *([{name: value} for value in values] for name, values in spec.replicates.items()),
    ]
    if not axes and spec.include:
        return
    count = math.prod(len(axis) for axis in axes)
    if count > MAX_POINTS:
        raise spec.error(("parameters",), f"the product has {count} points; at most {MAX_POINTS} are planned")
    for parts in product(*axes):
        yield {name: value for part in parts for name, value in part.items()}


def _rows(columns: dict[str, tuple[Scalar, ...]]) -> list[Assignments]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _kept(spec: SweepSpec, points: Iterator[Assignments]) -> Iterator[Assignments]:
    """The points that no exclude expression holds for."""
    expressions = [expression.parse(text) for text in spec.exclude]
    for point in points:
        if not any(_excluded(spec, index, parsed, point) for index, parsed in enumerate(expressions)):
            yield point


def _excluded(spec: SweepSpec, index: int, parsed: expression.Expression, point: Assignments) -> bool:
    try:
        return parsed.holds(point)
    except SpecError as error:
        raise spec.error(("exclude", index), f"{error.message}, for {point}", error.hint) from None


def _names(spec: SweepSpec, points: Sequence[Assignments]) -> list[str]:
    replicated = [axis for axis, values in spec.replicates.items() if len(values) > 1]
    swept = [axis for axis in spec.axes if axis not in spec.replicates]
    template = with_replicates(spec.job_name or default_template(swept), replicated)
    try:
        return point_names(template, spec.name, points)
    except AmbiguousName as error:
        missing = " or ".join(f"{{{name}}}" for name in error.missing)
        raise spec.error(("job_name",), str(error), f"add {missing} to the template") from None
