"""What a search found: the best trial or the front with its knee, what was not feasible, and what each parameter weighs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from reports.markdown import Column, code
from reports.numbers import statistics
from reports.sections.points import scalar
from reports.snapshot import SweepSnapshot
from reports.trials import SearchSnapshot, TrialSnapshot

MOST_ROWS = 20
MOST_REASONS = 5


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    search = snapshot.search
    if search is None or not search.trials:
        return None
    counts = Counter(trial.state for trial in search.trials)
    repeats = len([trial for trial in search.trials if trial.point]) - len(
        {trial.point for trial in search.trials if trial.point}
    )
    saved = [trial.saved_gpu_hours for trial in search.trials if trial.saved_gpu_hours]
    good = [search.trial(number) for number in search.front] or _best_first(search)
    return {
        "search": search,
        "counts": [
            (state, counts[state]) for state in ("complete", "infeasible", "pruned", "failed", "open") if counts[state]
        ],
        "repeats": repeats,
        "saved": sum(saved) if saved else None,
        "columns": _columns(search, good[:MOST_ROWS]) if good else None,
        "hidden": max(0, len(good) - MOST_ROWS),
        "is_front": bool(search.front),
        "knee": search.trial(search.knee) if search.knee is not None else None,
        "importance": _importance(search),
        "reasons": _reasons(search),
    }


def _best_first(search: SearchSnapshot) -> list[TrialSnapshot]:
    """Complete trials of one objective, a point once."""
    if len(search.objectives) != 1:
        return []
    sign = 1 if next(iter(search.objectives.values())) == "minimize" else -1
    first: dict[str | None, TrialSnapshot] = {}
    for trial in search.complete:
        first.setdefault(trial.point, trial)
    return sorted(first.values(), key=lambda trial: (sign * (trial.values or (0.0,))[0], trial.number))


def _columns(search: SearchSnapshot, trials: Sequence[TrialSnapshot]) -> list[Column]:
    marks = {search.best: "best", search.knee: "knee"}
    return [
        Column("Trial", [str(trial.number) for trial in trials], numeric=True),
        Column("Job", [code(trial.name) for trial in trials]),
        *(
            Column(code(name), [code(scalar(trial.params[name])) if name in trial.params else "" for trial in trials])
            for name in search.params
        ),
        *(
            Column(code(name), statistics([(trial.values or ())[place] for trial in trials], 3), numeric=True)
            for place, name in enumerate(search.objectives)
        ),
        Column("", [marks.get(trial.number, "") for trial in trials]),
    ]


def _importance(search: SearchSnapshot) -> list[Column] | None:
    if not search.importance:
        return None
    shown = list(search.importance)
    return [
        Column("Parameter", [code(name) for name in search.params]),
        *(
            Column(
                code(objective),
                [f"{100 * search.importance[objective].get(name, 0.0):.0f}%" for name in search.params],
                numeric=True,
            )
            for objective in shown
        ),
    ]


def _reasons(search: SearchSnapshot) -> list[tuple[str, str, int]]:
    """(state, why, how many trials) of what came to nothing, the most frequent first."""
    found = Counter((t.state, t.reason) for t in search.trials if t.state in ("infeasible", "failed") and t.reason)
    return [(state, reason or "", number) for (state, reason), number in found.most_common(MOST_REASONS)]
