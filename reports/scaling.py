"""How time grows with the projection: exponents of the factor and of D, fitted with their errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from reports import metrics
from reports.contrasts import Grid
from reports.fidelity import factor_axis
from reports.markdown import Column, code
from reports.power_law import PowerLaw, fit_power_law
from reports.snapshot import PointSnapshot, SweepSnapshot

QUANTITIES = ("hessian_solve", "token_scoring", "grad_staging", "pop_rows", "update_actor")
_MOST_SETTINGS = 10
"""Settings of the other axes whose fits are shown; a sweep of more has them in its points' table."""

_LEAST_ERROR = 5e-5
"""Below it nobody wants the digits."""


@dataclass(frozen=True)
class Scaling:
    """One phase over the factors of one setting."""

    setting: str
    """`scope=all_selected`; empty where nothing but the factor varies."""
    quantity: str
    against_factor: PowerLaw
    against_dim: PowerLaw | None
    """Against D of the largest modules; None where the score files do not say it."""
    factors: tuple[float, ...]
    """Those that were fitted, descending."""
    points: tuple[PointSnapshot, ...]


def scalings(snapshot: SweepSnapshot) -> list[Scaling]:
    """Every phase that was timed at two factors at least, for each setting of the other axes; first shown step."""
    grid, step = Grid.of(snapshot), metrics.first_step(metrics.shown_steps(snapshot))
    axis = factor_axis(grid)
    if axis is None or step is None:
        return []
    found = []
    for points in grid.groups(axis)[:_MOST_SETTINGS]:
        setting = grid.setting(points[0], axis, *grid.replicates)
        for quantity in QUANTITIES:
            known = [
                (p, value) for p in points if (value := metrics.seconds(p, quantity, step)) and 0 < value < math.inf
            ]
            fit = _fit(known, lambda point: float(str(point.parameters[axis])))
            if fit is not None:
                factors = tuple(sorted({float(str(point.parameters[axis])) for point, _ in known}, reverse=True))
                found.append(
                    Scaling(setting, quantity, fit, _fit(known, largest_dim), factors, tuple(p for p, _ in known))
                )
    return found


def largest_dim(point: PointSnapshot) -> float | None:
    """D of the largest modules: the solve's cost is theirs."""
    return max((float(one.dim) for one in point.dims), default=None)


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    found = scalings(snapshot)
    if not found:
        return None
    grid, step = Grid.of(snapshot), metrics.first_step(metrics.shown_steps(snapshot))
    axis = factor_axis(grid) or ""
    columns = [
        Column("Setting", [code(one.setting) for one in found]),
        Column("Phase", [code(metrics.label(one.quantity, one.points, step)) for one in found]),
        Column(f"{code(axis)} fitted", [", ".join(f"{factor:g}" for factor in one.factors) for one in found]),
        Column("Points", [str(one.against_factor.n) for one in found], numeric=True),
        Column(f"Exponent of {code(axis)}", [exponent(one.against_factor) for one in found], numeric=True),
        Column("Exponent of D", [exponent(one.against_dim) for one in found], numeric=True),
    ]
    return {
        "columns": columns,
        "axis": axis,
        "step": step,
        "with_dim": any(one.against_dim for one in found),
        "exact": any(one.against_factor.error is None for one in found),
        "hidden": max(len(grid.groups(axis)) - _MOST_SETTINGS, 0),
    }


def exponent(fit: PowerLaw | None) -> str:
    """-2.26 ± 0.13, -2.248 ± 0.003: the error's first digit is shown; without an error where there is none."""
    if fit is None:
        return ""
    if fit.error is None:
        return f"{fit.exponent:.2f}"
    decimals = max(2, -math.floor(math.log10(fit.error))) if fit.error >= _LEAST_ERROR else 2
    return f"{fit.exponent:.{decimals}f} ± {fit.error:.{decimals}f}"


def _fit(
    known: Sequence[tuple[PointSnapshot, float]], size: Callable[[PointSnapshot], float | None]
) -> PowerLaw | None:
    pairs = [(x, value) for point, value in known if (x := size(point)) is not None]
    return fit_power_law([x for x, _ in pairs], [value for _, value in pairs])
