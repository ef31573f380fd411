"""How the Hessian's solve grows with the projection, and which modules it is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports import metrics
from reports.contrasts import Grid, listed
from reports.findings.finding import Finding, metric_places, share, timed_step
from reports.markdown import code
from reports.numbers import count, seconds
from reports.power_law import PowerLaw
from reports.scaling import Scaling, exponent, scalings
from reports.snapshot import ModuleDims

_SOLVE = "hessian_solve"
_MOST_SHOWN = 2
_CHOLESKY = 3.0
_MOST_OF_IT = 0.5


def scaling(grid: Grid) -> list[Finding]:
    """The fitted exponent of the solve in each setting that has three factors at least, or its range over many."""
    found = [one for one in scalings(grid.snapshot) if one.quantity == _SOLVE and len(one.factors) > 2]
    if len(found) <= _MOST_SHOWN:
        return [_power(grid, one) for one in found]
    low, high = (pick(found, key=lambda one: one.against_factor.exponent).against_factor for pick in (min, max))
    sentence = (
        f"**{code(_SOLVE)} goes as the factor to the power {low.exponent:.2f} to {high.exponent:.2f}** over {len(found)} "
        "settings of the other axes."
    )
    return [Finding(sentence, metric_places(grid.points, timed_step(grid)))]


def _power(grid: Grid, one: Scaling) -> Finding:
    where = f" ({code(one.setting)})" if one.setting else ""
    levels = f"{len(one.factors)} factors, {one.factors[0]:g} to {one.factors[-1]:g}"
    power = exponent(one.against_factor)
    sentence = f"**{code(_SOLVE)} goes as the factor to the power {power}**{where}, over {levels}"
    if one.against_dim is not None:
        sentence += f"; as D to the power {exponent(one.against_dim)}{_beside_cholesky(one.against_dim)}"
    return Finding(sentence + ".", metric_places(one.points, timed_step(grid)))


def largest_modules(grid: Grid) -> list[Finding]:
    """The share of the arithmetic that falls on the modules with the largest D, where there are several sizes and a solve."""
    step = timed_step(grid)
    known = [(p, s) for p in grid.points if p.dims and (s := metrics.at(p, metrics.HESSIAN_SOLVE, step))]
    if not known:
        return []
    point, solve = max(known, key=lambda one: one[1])
    most = max(one.dim for one in point.dims)
    large = [one for one in point.dims if one.dim == most]
    if len({one.dim for one in point.dims}) < 2:
        return []
    part = _work(large) / _work(point.dims)
    if part < _MOST_OF_IT:
        return []
    modules = sum(one.modules for one in large)
    names = listed(list(dict.fromkeys(code(one.module_type) for one in large)))
    whole = metrics.at(point, metrics.STEP, step)
    of_step = f", {share(solve / whole)} of the step" if whole else ""
    every = count(sum(one.modules for one in point.dims))
    sentence = (
        f"**The largest modules are most of the solve's arithmetic**: {count(modules)} of {every} modules ({names}) have "
        f"D = {count(most)} and {share(part)} of the sum of D³. {code(_SOLVE)} takes {seconds(solve)} s{of_step} at "
        f"{code(point.name)}."
    )
    return [Finding(sentence, metric_places([point], step))]


def _work(dims: Sequence[ModuleDims]) -> float:
    return sum(one.modules * math.pow(one.dim, _CHOLESKY) for one in dims)


def _beside_cholesky(fit: PowerLaw) -> str:
    """Whether the exponent is that of a factorisation; without an error nobody can tell."""
    off = abs(fit.exponent - _CHOLESKY)
    if fit.error is not None and off <= 2 * fit.error:
        return ", within two standard errors of a Cholesky factorisation's (3)"
    return ", less than a Cholesky factorisation alone (3)" if fit.exponent < _CHOLESKY else ""
