"""What a level of an axis costs against another in seconds, and which phase explains it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean

from reports import metrics
from reports.contrasts import Compared, Contrast, Grid, Measure, compared, is_number, listed, pool_of
from reports.findings.finding import (
    SMALL,
    Finding,
    few,
    level,
    long_seconds,
    metric_places,
    over_replicates,
    per_pair,
    ratio,
    share,
    timed_step,
)
from reports.markdown import code
from reports.numbers import seconds
from reports.ratios import Ratio, agree, every_ratio, largest, ratios
from reports.resampling import geometric_mean
from reports.snapshot import PointSnapshot

WHOLES: tuple[tuple[str, metrics.Names], ...] = (
    ("step", metrics.STEP),
    ("update_actor", metrics.UPDATE_ACTOR),
    ("pop_rows", metrics.POP_ROWS),
)
"""Phases that hold others, the widest first."""
PARTS = tuple((name, names) for name, names in metrics.PHASES if name not in dict(WHOLES))
_INSIDE_SCORES = ("grad_staging", "hessian_solve", "token_scoring", "score_aggregation")
_INSIDE_UPDATE = ("forward_2", "loss_backward")
_INSIDE_TRACE = (*_INSIDE_SCORES, "forward_1", "logprob_backward")
_WORTH_NAMING = 0.2
"""Share of an increase from which a phase explains it."""
_MOST_LEVELS = 12
"""Levels up to which every two are compared."""


def cost_of_levels(grid: Grid) -> list[Finding]:
    """For each axis that changes the time: its dearest step from one level to the next, and the phase behind it."""
    found = []
    for axis in grid.factors:
        whole, known = _timed(grid, axis)
        dearest = largest(known, 1 + SMALL)
        if dearest is not None:
            elsewhere = [] if dearest.is_sure else _at_other_steps(grid, whole, dearest.contrast)
            differs = any(times < 1 + SMALL for _, times in elsewhere)
            found.append(_passing(grid, whole, dearest, elsewhere) if differs else _cost(grid, whole, dearest))
    return found


def small_effects(grid: Grid) -> list[Finding]:
    """Axes of which no level changes the time by as much as 3%: of any pair, or by the interval over replicates."""
    found = []
    for axis in grid.factors:
        if len(grid.levels(axis)) > _MOST_LEVELS:
            continue
        whole, known = _timed(grid, axis, every_ratio)
        most = max((one.most for one in known), default=1.0)
        if most < SMALL:
            points = [point for one in known for pair in one.pairs for point in pair.pair]
            levels = listed([level(axis, value) for value in grid.levels(axis)])
            sentence = (
                f"**{code(axis)} makes a small difference in time**: less than 3% of {code(whole)} between {levels} "
                f"(at most {share(most)}), all else equal."
            )
            found.append(Finding(sentence, metric_places(points, timed_step(grid))))
    return found


def _timed(
    grid: Grid, axis: str, between: Callable[[Grid, str, Measure], list[Ratio]] = ratios
) -> tuple[str, list[Ratio]]:
    """The widest phase that was timed at two levels, and its ratio from each level to the next."""
    for name, names in WHOLES:
        measure = partial(metrics.at, names=names, step=timed_step(grid))
        known = between(grid, axis, measure)
        if known:
            return name, known
    return "", []


def _cost(grid: Grid, whole: str, found: Ratio) -> Finding:
    contrast, pairs, axis = found.contrast, found.pairs, found.contrast.axis
    figures = [f"{long_seconds(pair.level)} against {long_seconds(pair.reference)}" for pair in pairs]
    sentence = (
        f"**{level(axis, contrast.level)} takes {ratio(found.mean)} the {code(whole)} of {_other(contrast)}** "
        f"({per_pair(grid, axis, pairs, figures)}{over_replicates(found)})"
        f"{_explained(grid, contrast, whole)}.{_range(grid, axis, whole, contrast)}{_pools(pairs)}"
    )
    points = [point for pair in pairs for point in pair.pair]
    return Finding(sentence, metric_places(points, timed_step(grid)))


def _at_other_steps(grid: Grid, whole: str, contrast: Contrast) -> list[tuple[int, float]]:
    """(step, mean ratio) of the same pairs in the other steps that the report shows."""
    found = []
    for step in metrics.shown_steps(grid.snapshot):
        pairs = compared(contrast, partial(metrics.at, names=dict(WHOLES)[whole], step=step))
        if pairs and step != timed_step(grid):
            found.append((step, geometric_mean([pair.ratio for pair in pairs])))
    return found


def _passing(grid: Grid, whole: str, found: Ratio, elsewhere: Sequence[tuple[int, float]]) -> Finding:
    """What one step shows and another one does not is more likely to be the machine's than the level's."""
    contrast, pairs, axis = found.contrast, found.pairs, found.contrast.axis
    figures = [f"{long_seconds(pair.level)} against {long_seconds(pair.reference)}" for pair in pairs]
    others = listed([f"{ratio(times)} in step {step}" for step, times in elsewhere])
    sentence = (
        f"**{level(axis, contrast.level)} takes {ratio(found.mean)} the {code(whole)} of {_other(contrast)} in step "
        f"{timed_step(grid)}, but {others}** ({per_pair(grid, axis, pairs, figures)}): no difference that could be told "
        f"from noise.{_pools(pairs)}"
    )
    return Finding(sentence, metric_places([point for pair in pairs for point in pair.pair], timed_step(grid)))


def _other(contrast: Contrast) -> str:
    words = level(contrast.axis, contrast.reference)
    return words.removeprefix(f"{code(contrast.axis)} ")


def _explained(grid: Grid, contrast: Contrast, whole: str) -> str:
    """The phase with the largest share of the increase, and of what it is inside of."""
    step = timed_step(grid)
    timed = {name: compared(contrast, partial(metrics.at, names=names, step=step)) for name, names in PARTS}
    of_part = {name: found for name, found in timed.items() if found and agree([pair.increase for pair in found])}
    if not of_part:
        return "; no phase that was timed apart grows with it" if any(timed.values()) else ""
    name, pairs = max(of_part.items(), key=lambda item: fmean(pair.increase for pair in item[1]))
    shares = [(outer, _share_of(grid, contrast, name, pairs, outer)) for outer, _ in WHOLES]
    known = [(outer, part) for outer, part in shares if part is not None]
    of_whole = dict(known).get(whole)
    if of_whole is None or of_whole < _WORTH_NAMING:
        throughout = " grows throughout and" if len(of_part) < sum(map(bool, timed.values())) else ""
        return f"; no phase that was timed apart{throughout} is {share(_WORTH_NAMING)} of the increase"
    said = {share(part): outer for outer, part in reversed(known)}  # of two with the same share the wider
    parts = listed([f"{part} of the increase of {code(outer)}" for part, outer in reversed(said.items())])
    figures = [f"{seconds(pair.level)} s against {seconds(pair.reference)} s" for pair in pairs]
    mean = geometric_mean([pair.ratio for pair in pairs])
    return f"; {code(name)} takes {ratio(mean)} ({few(figures)}) and is {parts}"


def _inside(whole: str, points: Sequence[PointSnapshot], step: int | None) -> Sequence[str]:
    """Which parts a whole holds; our trainer takes those of the trace out of `update_actor`."""
    update = _INSIDE_UPDATE if metrics.is_beside(points, step) else (*_INSIDE_UPDATE, *_INSIDE_TRACE)
    return {"pop_rows": _INSIDE_SCORES, "update_actor": update}.get(whole, list(dict(PARTS)))


def _share_of(grid: Grid, contrast: Contrast, name: str, part: Sequence[Compared], whole: str) -> float | None:
    """Of the increase of a whole around it over the same pairs; None where that is unknown, or smaller than the part's."""
    if name not in _inside(whole, [point for one in part for point in one.pair], timed_step(grid)):
        return None
    outer = {
        one.pair[0].id: one
        for one in compared(contrast, partial(metrics.at, names=dict(WHOLES)[whole], step=timed_step(grid)))
    }
    both = [(one, outer[one.pair[0].id]) for one in part if one.pair[0].id in outer]
    increase = sum(one.increase for _, one in both)
    inner = sum(one.increase for one, _ in both)
    return inner / increase if increase > 0 and 0 < inner <= increase * (1 + SMALL) else None


def _range(grid: Grid, axis: str, whole: str, contrast: Contrast) -> str:
    """How much it is from one end of the axis to the other, where there are levels between."""
    levels = grid.levels(axis)
    if (
        len(levels) < 3
        or not all(map(is_number, levels))
        or {levels[0], levels[-1]} == {contrast.level, contrast.reference}
    ):
        return ""
    ends = grid.contrast(axis, levels[-1], levels[0])
    pairs = compared(ends, partial(metrics.at, names=dict(WHOLES)[whole], step=timed_step(grid)))
    if not pairs:
        return ""
    mean = geometric_mean([pair.ratio for pair in pairs])
    return f" Over all levels, {level(axis, levels[-1])} takes {ratio(mean)} that of {_other(ends)}."


def _pools(pairs: Sequence[Compared]) -> str:
    """Figures from two kinds of card are no fair comparison, and the reader should know."""
    mixed = [pair.pair for pair in pairs if pool_of(pair.pair[0]) != pool_of(pair.pair[1])]
    if not mixed:
        return ""
    kinds = dict.fromkeys(f"{code(pool_of(a) or 'no pool')} against {code(pool_of(b) or 'no pool')}" for a, b in mixed)
    number = "One pair compares" if len(mixed) == 1 else f"{len(mixed)} pairs compare"
    return f" {number} {listed(list(kinds))}."


def phases_of(point: PointSnapshot, step: int | None) -> dict[str, float]:
    """Seconds of every phase that was timed in a step."""
    found = ((name, metrics.at(point, names, step)) for name, names in metrics.PHASES)
    return {name: value for name, value in found if value is not None}
