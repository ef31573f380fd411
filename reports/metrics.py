"""Where a figure of a report stands among a point's metrics: names by verl version, and which steps are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from reports.snapshot import NpzSnapshot, PointSnapshot, SweepSnapshot

Names = tuple[str, ...]
"""The first that is present counts."""

REWARD: Names = ("critic/score/mean", "critic/rewards/mean")
ROWS_EMITTED: Names = ("influence_trace/rows_emitted",)
CAPTURED: Names = ("influence_trace/debug_capture_selected_tokens",)
GRAD_NORM: Names = ("actor/grad_norm",)
POP_ROWS: Names = ("timing_s/influence_pop_rows",)
HESSIAN_SOLVE: Names = ("timing_s/influence_hessian_solve",)
STEP: Names = ("timing_s/step",)
UPDATE_ACTOR: Names = ("timing_s/update_actor",)
# the whole trace, which our trainer takes out of verl's update_actor
TRACE: Names = ("timing_s/influence",)
# the first is of all ranks, by our trainer (or by older verl); verl 0.9 puts one worker's own below `actor/`
TORCH_PEAK_GIB: Names = ("perf/max_memory_allocated_gb", "actor/perf/max_memory_allocated_gb")
PHYSICAL_PEAK_GIB: Names = ("perf/physical_memory_peak_gb",)
# of the whole node, whoever uses it
NODE_USED_GIB: Names = ("actor/perf/cpu_memory_used_gb", "perf/cpu_memory_used_gb")
HOST_PEAK_GIB: Names = ("perf/host_memory_peak_gb",)

# directions projected out of the update: constants of a run, then what a step's projection did
VHACK_MODULES: Names = ("vhack/modules_kept",)
VHACK_MODULES_SAVED: Names = ("vhack/modules_saved",)
VHACK_AXES: Names = ("vhack/axes_kept",)
VHACK_AXES_SAVED: Names = ("vhack/axes_saved",)
VHACK_THRESHOLD: Names = ("vhack/threshold",)
VHACK_CIN: Names = ("vhack/cin",)
VHACK_COUT: Names = ("vhack/cout",)
VHACK_FIRED: Names = ("vhack/fired",)
VHACK_SECONDS: Names = ("timing_s/vhack",)

PHASES: tuple[tuple[str, Names], ...] = (
    ("gen", ("timing_s/gen",)),
    ("grad_staging", ("timing_s/influence_grad_staging",)),
    ("hessian_solve", HESSIAN_SOLVE),
    ("token_scoring", ("timing_s/influence_token_scoring",)),
    ("score_aggregation", ("timing_s/influence_score_aggregation",)),
    ("pop_rows", POP_ROWS),
    ("forward_1", ("timing_s/influence_forward_1",)),
    ("logprob_backward", ("timing_s/influence_logprob_backward",)),
    ("forward_2", ("timing_s/influence_forward_2",)),
    ("loss_backward", ("timing_s/influence_loss_backward",)),
    ("update_actor", UPDATE_ACTOR),
    ("step", STEP),
)
"""Columns of the timing table, from the inner phases to the whole step."""

_NAMES = dict(PHASES)
_TIMED = "timing_s/influence_"
_MOST_FURTHER = 12

_MOST_STEPS_SHOWN = 3


def series(point: PointSnapshot, names: Names) -> dict[int, float]:
    """step -> value, ascending, for the steps that have one."""
    found = {step: _first(values, names) for step, values in sorted(point.metrics.items())}
    return {step: value for step, value in found.items() if value is not None}


def at(point: PointSnapshot, names: Names, step: int | None) -> float | None:
    return None if step is None else _first(point.metrics.get(step, {}), names)


def seconds(point: PointSnapshot, phase: str, step: int | None) -> float | None:
    """Of one of `PHASES`; `update_actor` with the trace, whether verl's figure holds it or our trainer states it beside."""
    found = at(point, _NAMES[phase], step)
    beside = at(point, TRACE, step) if phase == "update_actor" else None
    return found if found is None or beside is None else found + beside


def is_beside(points: Iterable[PointSnapshot], step: int | None) -> bool:
    """Whether the trace is no part of `update_actor` somewhere."""
    return any(at(point, TRACE, step) for point in points)


def label(phase: str, points: Iterable[PointSnapshot], step: int | None) -> str:
    """What `seconds` are of."""
    return "update_actor + influence" if phase == "update_actor" and is_beside(points, step) else phase


def further_phases(points: Iterable[PointSnapshot], step: int) -> list[tuple[str, Names]]:
    """Timings of the influence trace that `PHASES` does not know, by name: other trainers time other things."""
    known = {name for _, names in PHASES for name in names}
    found = {name for point in points for name in point.metrics.get(step, {}) if name.startswith(_TIMED)} - known
    return [(name.removeprefix(_TIMED), (name,)) for name in sorted(found)[:_MOST_FURTHER]]


def last(point: PointSnapshot, names: Names) -> float | None:
    """Of the last step that has one."""
    return next(reversed(series(point, names).values()), None)


def peak(point: PointSnapshot, names: Names) -> float | None:
    return max(series(point, names).values(), default=None)


def shown_steps(snapshot: SweepSnapshot) -> tuple[int, ...]:
    """All steps that any point has, or the first and the last where those are more than three."""
    return _ends({step for point in snapshot.points for step in point.metrics})


def shown_npz_steps(snapshot: SweepSnapshot) -> tuple[int, ...]:
    return _ends({file.step for point in snapshot.points for file in point.npz if file.step is not None})


def npz_at(point: PointSnapshot, step: int | None) -> NpzSnapshot | None:
    """The readable file of one step."""
    return next((file for file in point.npz if file.step == step and file.error is None), None)


def first_step(steps: Sequence[int]) -> int | None:
    return steps[0] if steps else None


def _ends(steps: set[int]) -> tuple[int, ...]:
    ordered = sorted(steps)
    return tuple(ordered) if len(ordered) <= _MOST_STEPS_SHOWN else (ordered[0], ordered[-1])


def _first(values: Mapping[str, float], names: Names) -> float | None:
    return next((values[name] for name in names if name in values), None)
