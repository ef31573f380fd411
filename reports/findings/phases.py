"""Where the time of an update goes: into the scores' phases, or into the passes around them."""

from __future__ import annotations

from collections.abc import Mapping

from reports import metrics
from reports.contrasts import Grid, listed
from reports.findings.costs import phases_of
from reports.findings.finding import Finding, metric_places, share, timed_step
from reports.markdown import code
from reports.numbers import seconds
from reports.snapshot import PointSnapshot

_INSIDE = ("grad_staging", "hessian_solve", "token_scoring", "score_aggregation")
_PASSES = {
    "backward passes": ("logprob_backward", "loss_backward"),
    "forward passes": ("forward_1", "forward_2"),
    "scores": ("pop_rows",),
}
_DOMINANT = 0.3
"""Share of `pop_rows` from which a phase is named."""


def share_of_scores(grid: Grid) -> list[Finding]:
    """What the scores cost of the update where they cost most and least, and which phases of theirs."""
    step = timed_step(grid)
    known = [(point, times) for point in grid.points if (times := _timed(point, step))]
    if not known:
        return []
    most = max(known, key=lambda one: one[1]["pop_rows"] / one[1]["update_actor"])
    least = min(known, key=lambda one: one[1]["pop_rows"] / one[1]["update_actor"])
    (point, times), part = most, most[1]["pop_rows"] / most[1]["update_actor"]
    named = [(name, times[name] / times["pop_rows"]) for name in _INSIDE if name in times]
    dominant = sorted((one for one in named if one[1] >= _DOMINANT), key=lambda one: -one[1])
    words = (
        listed([f"{code(name)} {seconds(times[name])} s ({100 * of:.1f}%)" for name, of in dominant])
        if dominant
        else ""
    )
    where = f" at {code(grid.setting(point) or point.name)}" if len(known) > 1 else ""
    sentence = (
        f"**`pop_rows` is {share(part)} of `update_actor`{where}** ({seconds(times['pop_rows'])} of "
        f"{seconds(times['update_actor'])} s)" + (f"; of its seconds {words} dominate" if words else "")
    )
    if least[0] is not point:
        other = least[1]["pop_rows"] / least[1]["update_actor"]
        sentence += f". At {code(grid.setting(least[0]) or least[0].name)} it is {share(other)}"
    return [Finding(sentence + ".", metric_places([point, least[0]], step))]


def bottleneck(grid: Grid) -> list[Finding]:
    """The largest part of the update and its trace, where the passes were timed apart."""
    step = timed_step(grid)
    known = [(point, times) for point in grid.points if (times := _timed(point, step)) and _passes(times)]
    if not known:
        return []
    point, times = max(known, key=lambda one: one[1]["update_actor"])
    trace = metrics.at(point, metrics.TRACE, step) or 0.0
    whole = times["update_actor"] + trace
    parts = {kind: sum(times[name] for name in names) for kind, names in _passes(times).items()}
    kind, most = max(parts.items(), key=lambda one: one[1])
    if most <= whole - sum(parts.values()):  # what nobody timed may be larger
        return []
    names = _passes(times)[kind]
    sum_ = " + ".join(f"{code(name)} {seconds(times[name])} s" for name in names)
    total = f" = {seconds(most)} s" if len(names) > 1 else ""
    where = f" of {code(point.name)}" if len(grid.points) > 1 else ""
    beside = f" and the trace beside it ({seconds(times['update_actor'])} + {seconds(trace)} s)" if trace else ""
    of_all = f"{share(most / whole)} of `update_actor`{beside}"
    sentence = f"**The {kind} are the largest part of the update{where}**: {sum_}{total}, {of_all}."
    return [Finding(sentence, metric_places([point], step))]


def _timed(point: PointSnapshot, step: int | None) -> dict[str, float] | None:
    """Phases of a point whose scores and update were timed.

    Our trainer takes the trace out of verl's figure of the update, and states it as `timing_s/influence`.
    """
    times = phases_of(point, step)
    whole = times.get("update_actor", 0.0) + (metrics.at(point, metrics.TRACE, step) or 0.0)
    return times if times.get("update_actor") and 0 < times.get("pop_rows", 0.0) <= whole else None


def _passes(times: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    found = {kind: tuple(name for name in names if times.get(name)) for kind, names in _PASSES.items()}
    passes = {kind: names for kind, names in found.items() if names}
    return passes if len(passes) > 1 else {}
