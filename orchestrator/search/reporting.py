"""What the report says of a search, as the plain snapshot that it draws; and what each parameter weighs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

from orchestrator.search.results import TrialRow, TrialState, best, front, knee
from orchestrator.search.spec import SearchSpec
from orchestrator.spec_model import SweepSpec
from reports.trials import SearchSnapshot, TrialSnapshot

LEAST_TRIALS = 4
"""Complete ones, below which nothing is said of importance."""


def search_snapshot(spec: SweepSpec, rows: Sequence[TrialRow], names: Mapping[str, str]) -> SearchSnapshot | None:
    """Args: rows: all trials; names: of points by id. None where the sweep file has no search."""
    search = spec.search
    if search is None:
        return None
    several = len(search.objectives) > 1
    good = front(rows, search.directions) if several else []
    top = None if several else best(rows, search.directions)
    middle = knee(good, search.directions)
    return SearchSnapshot(
        sampler=search.sampler.name,
        seed=search.seed,
        wanted=search.trials,
        params=search.params,
        objectives=search.objectives,
        constraints=search.constraints,
        trials=tuple(_trial(row, names, spec.resources.gpus) for row in rows),
        best=top.number if top else None,
        front=tuple(row.number for row in good),
        knee=middle.number if middle else None,
        importance=importance(search, rows),
    )


def _trial(row: TrialRow, names: Mapping[str, str], gpus: int) -> TrialSnapshot:
    return TrialSnapshot(
        number=row.number,
        point=row.point,
        name=names.get(row.point or "", ""),
        params=row.params,
        state=row.state.value,
        values=row.values,
        reason=row.reason,
        saved_gpu_hours=row.saved_s * gpus / 3600 if row.saved_s is not None else None,
    )


def importance(search: SearchSpec, rows: Sequence[TrialRow]) -> dict[str, dict[str, float]]:
    """Objective -> parameter -> share of what tells the better trials from all, by PED-ANOVA (Watanabe et al. 2023).

    Each objective for itself, over complete trials; one whose trials are too few or all alike is left out.
    """
    done = [row for row in rows if row.state is TrialState.COMPLETE and row.values is not None]
    if len(done) < LEAST_TRIALS or len(search.params) < 2:
        return {}
    import optuna

    from orchestrator.search.study import distribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = {name: distribution(domain) for name, domain in search.domains.items()}
    found: dict[str, dict[str, float]] = {}
    for place, (objective, direction) in enumerate(search.objectives.items()):
        study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0))
        for row in done:
            used = {name: known[name] for name in row.params}
            value = (row.values or ())[place]
            study.add_trial(optuna.trial.create_trial(params=dict(row.params), distributions=used, value=value))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # it says so where nothing tells the better trials from all
                shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError, UserWarning):
            continue
        found[objective] = {name: float(share) for name, share in shares.items()}
    return found
