"""What happens to the scores over the axes: their spread, the knee of its price, and the rows that came out."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

from reports import metrics
from reports.contrasts import Grid, is_number
from reports.fidelity import Curve, Level, curves, factor_axis
from reports.findings.finding import (
    SMALL,
    Finding,
    level,
    metric_places,
    over_replicates,
    per_pair,
    ratio,
    score_places,
    share,
    timed_step,
)
from reports.markdown import code
from reports.numbers import count, plural, seconds, statistics
from reports.ratios import Ratio, largest, ratios
from reports.sections.points import scalar
from reports.snapshot import PointSnapshot

_MOST_CURVES = 3
_MOST_LEVELS = 6


def spread_over_numbers(grid: Grid) -> list[Finding]:
    """The scores' standard deviation along each axis of numbers, where it goes one way."""
    step = _npz_step(grid)
    found = []
    for axis in grid.factors:
        if not all(map(is_number, grid.levels(axis))):
            continue
        for points in grid.groups(axis)[:_MOST_CURVES]:
            known = [(point, std) for point in points if (std := _std(point, step)) is not None]
            by_level = {scalar(point.parameters[axis]): (point, std) for point, std in reversed(known)}
            ordered = sorted(by_level.values(), key=lambda one: -float(str(one[0].parameters[axis])))
            values = [std for _, std in ordered]
            rises, falls = values == sorted(values), values == sorted(values, reverse=True)
            if len(values) >= 3 and len(known) == len(ordered) and rises != falls:  # replicates: see Statistics
                found.append(_spread(grid, axis, [point for point, _ in ordered], values, rises))
    return found


def spread_over_words(grid: Grid) -> list[Finding]:
    """For each axis of words the two levels between which the spread differs most."""
    found = []
    measure = partial(_std, step=_npz_step(grid))
    for axis in grid.factors:
        if not all(map(is_number, grid.levels(axis))):
            most = largest(ratios(grid, axis, measure), 1 + SMALL)
            if most is not None:
                found.append(_wider(grid, most))
    return found


def knee(grid: Grid) -> list[Finding]:
    """Where more cost stops to buy much fidelity: in each setting of the other axes, or counted over many."""
    every = curves(grid.snapshot)
    found = [(curve, best) for curve in every if (best := curve.knee) is not None]
    if len(every) <= _MOST_CURVES or not found:
        return [_knee(curve, best) for curve, best in found]
    times = Counter(best.factor for _, best in found)
    factor, number = max(times.items(), key=lambda one: (one[1], one[0]))
    points = [point for curve, best in found if best.factor == factor for point in best.points]
    sentence = (
        f"**{code(every[0].axis)} {factor:g} is the knee of cost against fidelity in {number} of {len(every)} settings** of "
        f"the other axes; score std stands in for fidelity here."
    )
    return [Finding(sentence, score_places(points, _npz_step(grid)))]


def rows_emitted(grid: Grid) -> list[Finding]:
    """All points emitted the same number of rows: nothing was lost on the way."""
    step = timed_step(grid)
    rows = [metrics.at(point, metrics.ROWS_EMITTED, step) for point in grid.points]
    known = [value for value in rows if value is not None]
    if not known or len(known) < len(grid.points) or len(set(known)) > 1 or not known[0]:
        return []
    number = "The point" if len(known) == 1 else f"All {plural(len(known), 'point')}"
    done = "" if len(known) == len(grid.snapshot.points) else " that succeeded"
    sentence = f"**{number}{done} emitted {count(known[0])} rows** in step {step}."
    return [Finding(sentence, metric_places(grid.points, step))]


def _spread(grid: Grid, axis: str, points: list[PointSnapshot], values: list[float], rises: bool) -> Finding:
    places = range(len(points)) if len(points) <= _MOST_LEVELS else (0, len(points) // 2, len(points) - 1)
    figures = statistics([values[place] for place in places])
    levels = ", ".join(
        f"{figure} at {scalar(points[place].parameters[axis])}" for place, figure in zip(places, figures, strict=True)
    )
    where = grid.setting(points[0], axis)
    sentence = (
        f"**Score std {'rises' if rises else 'falls'} as {code(axis)} falls**"
        f"{f' ({code(where)})' if where else ''}: {levels}"
    )
    finer = rises and axis == factor_axis(grid)
    guess = ", as it would if the larger projection kept more of the variance; noise would look alike" if finer else ""
    return Finding(f"{sentence}{guess}.", score_places(points, _npz_step(grid)))


def _knee(curve: Curve, best: Level) -> Finding:
    first, last = curve.levels[0], curve.levels[-1]
    stds = [one.std for one in curve.levels]
    kept = best.std / max(stds)
    std, most, *_ = statistics([best.std, max(stds), *stds])
    extra, last_extra = best.cost_s / first.cost_s - 1, last.cost_s / first.cost_s - 1
    scores = [metrics.at(point, metrics.POP_ROWS, curve.step) for point in best.points]
    known = [value for value in scores if value is not None]
    of_it = f"; `pop_rows` is {share(sum(known) / len(known) / best.cost_s)} of it" if known else ""
    where = f" ({code(curve.setting)})" if curve.setting else ""
    price = f"{seconds(best.cost_s)} s against {seconds(first.cost_s)} s{of_it}"
    sentence = (
        f"**{code(curve.axis)} {best.factor:g} is the knee of cost against fidelity**{where}: "
        f"{ratio(first.factor / best.factor)} the projected width of {first.factor:g} for {share(extra)} more "
        f"{code(curve.cost)} ({price}), and {share(kept)} of the largest score std ({std} of {most}), which stands in for "
        f"fidelity here; {last.factor:g} takes {share(last_extra)} more"
    )
    points = [point for one in curve.levels for point in one.points]
    return Finding(sentence + ".", metric_places(points, curve.step)[:2] + score_places(points, curve.step)[:2])


def _wider(grid: Grid, found: Ratio) -> Finding:
    contrast, pairs, axis = found.contrast, found.pairs, found.contrast.axis
    figures = ["{} against {}".format(*statistics([pair.level, pair.reference])) for pair in pairs]
    where = grid.setting(pairs[0].pair[0], axis) if len(pairs) == 1 else ""
    sentence = (
        f"**{level(axis, contrast.level)} has {ratio(found.mean)} the score std of {level(axis, contrast.reference)}** "
        f"({per_pair(grid, axis, pairs, figures)}{f' at {code(where)}' if where else ''}{over_replicates(found)})."
    )
    return Finding(sentence, score_places([point for pair in pairs for point in pair.pair], _npz_step(grid)))


def _std(point: PointSnapshot, step: int | None) -> float | None:
    file = metrics.npz_at(point, step)
    return file.std if file is not None and file.std is not None and math.isfinite(file.std) else None


def _npz_step(grid: Grid) -> int | None:
    return metrics.first_step(metrics.shown_npz_steps(grid.snapshot))
