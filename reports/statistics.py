"""Effects of each factor over replicates: paired bootstrap intervals, exact tests by sign flips, Holm across levels.

A replicate (a seed) is the unit that is resampled: see `ratios.per_replicate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any

from reports import metrics
from reports.contrasts import Contrast, Grid, Measure, compared, is_number
from reports.findings.memory import gpu_bytes, host_bytes
from reports.markdown import Column, code
from reports.ratios import log_ratio, per_replicate, ratio_interval
from reports.resampling import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    best_coverage,
    bootstrap_interval,
    holm,
    sign_flip_p,
)
from reports.sections.points import scalar
from reports.snapshot import PointSnapshot, Scalar, SweepSnapshot

_MOST_ROWS = 60
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Effect:
    """One level against its reference, for one figure."""

    measure: str
    axis: str
    level: Scalar
    reference: Scalar
    size: Interval
    """Of the mean over replicates: of the ratio, in the geometric mean, or of the difference."""
    is_difference: bool
    pairs: int
    """Points compared, all settings together."""
    p: float
    """Of "there is no effect", by sign flips."""
    adjusted: float
    """p after Holm across the levels of this axis, for this figure."""


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    """Says that nothing can be concluded where no point was repeated; None where there is nothing to compare."""
    grid = Grid.of(snapshot)
    if not grid.factors or not any(grid.adjacent(axis) for axis in grid.factors):
        return None
    found = effects(snapshot)
    fewest = min((effect.size.n for effect in found), default=0)
    return {
        "columns": _columns(found[:_MOST_ROWS]) if found else [],
        "hidden": len(found) - len(found[:_MOST_ROWS]),
        "replicates": sorted(grid.replicates),
        "confidence": f"{100 * CONFIDENCE:.0f}%",
        "resamples": RESAMPLES,
        "fewest": fewest,
        "differences": any(effect.is_difference for effect in found),
        "best_coverage": f"{100 * best_coverage(fewest):.0f}%" if best_coverage(fewest) < CONFIDENCE else "",
        "least_p": f"{2.0 ** (1 - fewest):.3g}" if fewest else "",
        "points": len(grid.points),
    }


def effects(snapshot: SweepSnapshot) -> list[Effect]:
    """Each figure, each factor, each level against its reference: what two replicates at least have measured."""
    grid = Grid.of(snapshot)
    contrasts = {axis: grid.adjacent(axis) for axis in grid.factors}
    found = []
    for name, measure in {**measures(snapshot), **DIFFERENCES}.items():
        for every in contrasts.values():
            family = [effect for one in every if (effect := _effect(grid, name, measure, one)) is not None]
            adjusted = holm([effect.p for effect in family])
            found += [replace(effect, adjusted=p) for effect, p in zip(family, adjusted, strict=True)]
    return found


def measures(snapshot: SweepSnapshot) -> dict[str, Measure]:
    """What is compared by ratios: the figures of the tables, of the steps that these show."""
    step = metrics.first_step(metrics.shown_steps(snapshot))
    npz_step = metrics.first_step(metrics.shown_npz_steps(snapshot))
    seconds: dict[str, metrics.Names] = {
        "step (s)": metrics.STEP,
        "update_actor (s)": metrics.UPDATE_ACTOR,
        "pop_rows (s)": metrics.POP_ROWS,
        "hessian_solve (s)": metrics.HESSIAN_SOLVE,
    }
    return {
        **{name: partial(metrics.at, names=names, step=step) for name, names in seconds.items()},
        "score std": partial(_score_std, step=npz_step),
        "grad_norm": partial(metrics.at, names=metrics.GRAD_NORM, step=step),
        "GPU memory": gpu_bytes,
        "host memory": host_bytes,
    }


DIFFERENCES: dict[str, Measure] = {"reward, last step": partial(metrics.last, names=metrics.REWARD)}
"""What may be zero or negative, and is compared by differences."""


def _effect(grid: Grid, name: str, measure: Measure, contrast: Contrast) -> Effect | None:
    is_difference = name in DIFFERENCES
    pairs = compared(contrast, measure, signed=is_difference)
    values = per_replicate(grid, pairs, attrgetter("increase") if is_difference else log_ratio)
    interval, p = bootstrap_interval(values) if is_difference else ratio_interval(grid, pairs), sign_flip_p(values)
    if interval is None or p is None:
        return None
    level, reference = contrast.level, contrast.reference
    return Effect(name, contrast.axis, level, reference, interval, is_difference, len(pairs), p, adjusted=p)


def _columns(found: Sequence[Effect]) -> list[Column]:
    return [
        Column("Figure", [effect.measure for effect in found]),
        Column("Factor", [code(effect.axis) for effect in found]),
        Column("Level", [_word(effect.level) for effect in found]),
        Column("Against", [_word(effect.reference) for effect in found]),
        Column("Effect", [_size(effect, effect.size.mean) for effect in found], numeric=True),
        Column(
            f"{100 * CONFIDENCE:.0f}% interval",
            [f"{_size(effect, effect.size.low)} to {_size(effect, effect.size.high)}" for effect in found],
            numeric=True,
        ),
        Column("Replicates", [str(effect.size.n) for effect in found], numeric=True),
        Column("Pairs", [str(effect.pairs) for effect in found], numeric=True),
        Column("p", [f"{effect.p:.3g}" for effect in found], numeric=True),
        Column("p (Holm)", [_emphasised(effect.adjusted) for effect in found], numeric=True),
    ]


def _word(value: Scalar) -> str:
    return scalar(value) if is_number(value) else code(scalar(value))


def _size(effect: Effect, value: float) -> str:
    """1.210× of a ratio, +0.031 of a difference."""
    return f"{value:+.3g}" if effect.is_difference else f"{value:,.3f}×"


def _emphasised(p: float) -> str:
    return f"**{p:.3g}**" if p <= _SIGNIFICANT else f"{p:.3g}"


def _score_std(point: PointSnapshot, step: int | None) -> float | None:
    file = metrics.npz_at(point, step)
    return file.std if file is not None else None
