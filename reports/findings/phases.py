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
_MOST = 0.5


def share_of_scores(grid: Grid) -> list[Finding]:
    """What the scores cost of the update where they cost most and least, and which phases of theirs."""
    step = timed_step(grid)
    known = [(point, times) for point in grid.points if (times := _timed(point, step))]
    if not known:
        return []
    ranked = sorted(known, key=lambda one: one[1]["pop_rows"] / one[1]["whole"])
    (least, least_times), (point, times) = ranked[0], ranked[-1]
    named = [(name, times[name] / times["pop_rows"]) for name in _INSIDE if name in times]
    dominant = sorted((one for one in named if one[1] >= _DOMINANT), key=lambda one: -one[1])
    words = ""
    if dominant:
        figures = listed([f"{code(name)} {seconds(times[name])} s ({100 * of:.1f}%)" for name, of in dominant])
        is_most = sum(of for _, of in dominant) > _MOST
        words = f"of its seconds {figures} {'dominate' if is_most else 'take most'}"
    beside = " and the trace beside it" if metrics.is_beside([point], step) else ""
    where = f" at {code(grid.setting(point) or point.name)}" if len(known) > 1 else ""
    sentence = (
        f"**`pop_rows` is {share(times['pop_rows'] / times['whole'])} of `update_actor`{beside}{where}** "
        f"({seconds(times['pop_rows'])} of {seconds(times['whole'])} s)" + (f"; {words}" if words else "")
    )
    other = share(least_times["pop_rows"] / least_times["whole"])
    if other != share(times["pop_rows"] / times["whole"]):
        sentence += f". At {code(grid.setting(least) or least.name)} it is {other}"
    return [Finding(sentence + ".", metric_places([point, least], step))]


def bottleneck(grid: Grid) -> list[Finding]:
    """The largest part of the update and its trace, where the passes were timed apart."""
    step = timed_step(grid)
    known = [(point, times) for point in grid.points if (times := _timed(point, step)) and _passes(times)]
    if not known:
        return []
    point, times = max(known, key=lambda one: one[1]["update_actor"])
    whole = times["whole"]
    trace = whole - times["update_actor"]
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
    """Phases of a point whose scores and update were timed, and the update with its trace as `whole`."""
    times = phases_of(point, step) | {"whole": metrics.seconds(point, "update_actor", step) or 0.0}
    return times if times.get("update_actor") and 0 < times.get("pop_rows", 0.0) <= times["whole"] else None


def _passes(times: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    found = {kind: tuple(name for name in names if times.get(name)) for kind, names in _PASSES.items()}
    passes = {kind: names for kind, names in found.items() if names}
    return passes if len(passes) > 1 else {}
