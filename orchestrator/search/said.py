"""A search in sentences and as JSON, for `plan`, `status` and `watch`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.model import Scalar
from orchestrator.search.points import grid_trials, trial_count
from orchestrator.search.results import TrialRow, TrialState, best, front, knee
from orchestrator.search.spec import SearchSpec
from orchestrator.spec_model import SweepSpec

MOST_OF_FRONT = 5


def plan_lines(spec: SweepSpec) -> list[str]:
    """What the search will do; empty without one."""
    search = spec.search
    if search is None:
        return []
    goals = ", ".join(f"{direction} {name}" for name, direction in search.objectives.items())
    lines = [f"searches {trial_count(spec)} trials to {goals}; sampler {search.sampler.name}, seed {search.seed}"]
    lines += [f"  {name}: {domain}{_condition(search, name)}" for name, domain in search.params.items()]
    if search.constraints:
        lines.append(f"  subject to {', '.join(search.constraints)}")
    if grid := grid_trials(spec):
        lines.append(f"  begins with {len(grid)} of the grid: {'; '.join(_settings(params) for params in grid)}")
    if search.prune:
        lines.append(f"  jobs that look hopeless to the pruner {search.prune.name} are ended early")
    return [*lines, "  each configuration runs once: a trial that repeats one takes its result"]


def _condition(search: SearchSpec, name: str) -> str:
    return f", where {search.when[name]}" if name in search.when else ""


def search_lines(spec: SweepSpec, rows: Sequence[TrialRow], names: Mapping[str, str], gpus: int = 0) -> list[str]:
    """How far the search is, and the best so far or the front; empty without one.

    Args:
        rows: all trials.
        names: of points by id.
        gpus: of one attempt, for what pruning saved.
    """
    search = spec.search
    if search is None:
        return []
    states = Counter(row.state for row in rows)
    told = ", ".join(f"{states[state]} {state.value}" for state in TrialState if states[state])
    return [
        f"search: {len(rows)} of {trial_count(spec)} trials, {told or 'none yet'}",
        *_saved(rows, gpus),
        *_good(search, rows, names),
    ]


def _saved(rows: Sequence[TrialRow], gpus: int) -> Iterator[str]:
    saved = sum(row.saved_s or 0.0 for row in rows)
    if saved:
        yield (
            f"  pruning saved {saved * gpus / 3600:.1f} GPU-hours"
            if gpus
            else f"  pruning saved {saved / 3600:.2f} hours"
        )


def _good(search: SearchSpec, rows: Sequence[TrialRow], names: Mapping[str, str]) -> Iterator[str]:
    if len(search.objectives) == 1:
        top = best(rows, search.directions)
        if top is not None:
            yield f"  best so far: {_trial(search, top, names)}"
        return
    good = front(rows, search.directions)
    middle = knee(good, search.directions)
    if good:
        yield f"  front of {len(good)}{f', shown {MOST_OF_FRONT}' if len(good) > MOST_OF_FRONT else ''}:"
    for row in _spread(good):
        yield f"    {_trial(search, row, names)}{'  <- knee' if middle and row.number == middle.number else ''}"
    if middle is not None and middle not in _spread(good):
        yield f"    knee: {_trial(search, middle, names)}"


def _spread(good: Sequence[TrialRow]) -> list[TrialRow]:
    """At most `MOST_OF_FRONT`, evenly from one end to the other."""
    if len(good) <= MOST_OF_FRONT:
        return list(good)
    return [good[round(place * (len(good) - 1) / (MOST_OF_FRONT - 1))] for place in range(MOST_OF_FRONT)]


def _trial(search: SearchSpec, row: TrialRow, names: Mapping[str, str]) -> str:
    values = ", ".join(f"{name} {value:.4g}" for name, value in zip(search.objectives, row.values or (), strict=True))
    return f"{names.get(row.point or '', f'trial {row.number}')}: {values} ({_settings(row.params)})"


def _settings(params: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{name}={_spelled(value)}" for name, value in params.items())


def _spelled(value: Scalar) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def search_json(spec: SweepSpec, rows: Sequence[TrialRow]) -> dict[str, Any] | None:
    """The documented form of `search` in `status --json`; None without a search."""
    search = spec.search
    if search is None:
        return None
    several = len(search.objectives) > 1
    good = front(rows, search.directions) if several else []
    top, middle = None if several else best(rows, search.directions), knee(good, search.directions)
    return {
        "objectives": search.objectives,
        "trials": [
            {
                "number": row.number,
                "point": row.point,
                "params": dict(row.params),
                "state": row.state.value,
                "values": list(row.values) if row.values is not None else None,
                "reason": row.reason,
            }
            for row in rows
        ],
        "wanted": trial_count(spec),
        "best": top.number if top else None,
        "front": [row.number for row in good],
        "knee": middle.number if middle else None,
        "saved_seconds": sum(row.saved_s or 0.0 for row in rows),
    }
