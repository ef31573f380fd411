"""One Optuna study on its journal: open, ask, tell, report. It is the sampler's memory; what is alive, the store knows.

Each step is one batch of the journal (`journal`), and each can be taken again: asking is guarded by what the store has bound,
telling by the state of the trial, reporting by the steps that are there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.trial import Trial, create_trial
from optuna.trial import TrialState as OptunaState

from orchestrator.errors import EnvironmentProblem, SpecError, UsageError
from orchestrator.model import Scalar
from orchestrator.search.journal import BatchedJournal
from orchestrator.search.results import EXCLUDED, Told, TrialState
from orchestrator.search.rules import applies, in_order
from orchestrator.search.samplers import SAMPLERS, WANTS_VALUES, make_pruner, make_sampler
from orchestrator.search.space import Choice, Domain, Integers
from orchestrator.search.spec import SearchSpec

Params = dict[str, Scalar]


@dataclass(frozen=True)
class Asked:
    """A trial that Optuna made."""

    number: int
    params: Params
    point: str | None = None
    """Of the point that it is bound to; None: `exclude` holds."""


Bind = Callable[[int, Params], str | None]
"""(number, parameters) -> id of the point that runs them, or None where `exclude` holds."""


class SearchStudy:
    """Use `open_study`."""

    def __init__(self, study: Any, journal: BatchedJournal, search: SearchSpec, fixed: Mapping[str, Scalar]) -> None:
        self._study, self._journal, self._search, self._fixed = study, journal, search, fixed
        self._order = in_order(search)
        self._distributions = {name: distribution(domain) for name, domain in search.domains.items()}
        self._idle = optuna.samplers.RandomSampler(seed=0)

    def ask(self, bind: Bind) -> Asked:
        """The next trial: of the queue, else the sampler's. In the journal with its point, or, should we die, not at all."""
        with self._journal.batch():
            number = self._next_number()
            with _blamed("sampler", self._search.sampler.name, number):
                self._study.sampler = make_sampler(self._search, number)
                trial = self._study.ask()
                params = self._suggest(trial)
            point = bind(trial.number, params)
            if point is not None:
                trial.set_user_attr("point", point)
            else:
                self._finish(trial.number, EXCLUDED)
        return Asked(trial.number, params, point)

    def unbound(self, known: Collection[int]) -> list[Asked]:
        """Trials that were asked for and that the store does not know: we died in between."""
        found = [trial for trial in self._trials() if trial.number not in known and trial.state != OptunaState.WAITING]
        ours = [trial for trial in found if "again" not in trial.user_attrs]
        return [Asked(trial.number, dict(trial.params), trial.user_attrs.get("point")) for trial in ours]

    def tell(self, number: int, told: Told) -> None:
        """Say what came of a trial; saying it again changes nothing.

        A trial that was told otherwise before (its point was run again) cannot be changed: the new result is added as another
        trial of the same parameters.
        """
        trial = self._trial(number)
        if not trial.state.is_finished():
            with self._journal.batch():
                self._finish(number, told)
        elif not self._says(trial, told) and not any(self._says(other, told) for other in self._repeats(number)):
            with self._journal.batch():
                params = {name: trial.params[name] for name in trial.distributions}
                again = create_trial(state=OptunaState.RUNNING, params=params, distributions=trial.distributions)
                self._study.add_trial(again)
                added = self._trials()[-1].number
                self._open(added).set_user_attr("again", number)
                self._finish(added, told)

    def report(self, number: int, series: Mapping[int, float]) -> bool:
        """Report values by step, those that are new; whether the pruner would end the trial."""
        if self._trial(number).state.is_finished():
            return False
        trial = self._open(number)
        known = self._trial(number).intermediate_values
        new = {step: value for step, value in sorted(series.items()) if step not in known}
        if not new:
            return False
        with self._journal.batch():
            for step, value in new.items():
                trial.report(value, step)
        with _blamed("prune", self._search.prune.name if self._search.prune else "", number):
            return bool(self._open(number).should_prune())

    def require(self, numbers: Collection[int]) -> None:
        """Raises: UsageError: the store knows trials that the journal does not."""
        missing = sorted(set(numbers) - {trial.number for trial in self._trials()})
        if missing:
            raise UsageError(
                f"the journal of this search, {self._journal.path}, lacks trial {missing[0]}, which the database knows: "
                "put the file back, or search anew under another name"
            )

    def _suggest(self, trial: Any) -> Params:
        params: Params = {}
        for name in self._order:
            if applies(self._search, name, {**self._fixed, **params}):
                params[name] = trial._suggest(name, self._distributions[name])
        return {name: params[name] for name in self._search.params if name in params}

    def _finish(self, number: int, told: Told) -> None:
        trial = self._open(number)
        for key, value in told.constraints.items():
            trial.set_constraint(key, value)
        for name, note in (("outcome", told.state.value), ("reason", told.reason), ("pool", told.pool)):
            if note is not None:
                trial.set_user_attr(name, note)
        if self._search.sampler.name not in SAMPLERS:  # Optuna's own note nothing, and its grid would end `optimize`
            self._study.sampler = make_sampler(self._search, number)
        values = told.values
        if told.state is TrialState.INFEASIBLE and values is None and self._search.sampler.name in WANTS_VALUES:
            values = self._worst()
        if told.state is TrialState.FAILED:
            self._study.tell(number, state=OptunaState.FAIL)
        elif told.state is TrialState.PRUNED or values is None:
            self._study.tell(number, state=OptunaState.PRUNED)
        else:
            self._study.tell(number, list(values))

    def _worst(self) -> tuple[float, ...] | None:
        done = [trial.values for trial in self._trials() if trial.state == OptunaState.COMPLETE]
        if not done:
            return None
        pick = {"minimize": max, "maximize": min}
        return tuple(
            pick[way](column) for way, column in zip(self._search.directions, zip(*done, strict=True), strict=True)
        )

    def _open(self, number: int) -> Any:
        """A trial to write to; no sampler takes notice."""
        self._study.sampler = self._idle
        return Trial(self._study, self._trial(number)._trial_id)

    def _trial(self, number: int) -> Any:
        return self._trials()[number]

    def _trials(self) -> Any:
        return self._study.get_trials(deepcopy=False)

    def _next_number(self) -> int:
        trials = self._trials()
        return next((trial.number for trial in trials if trial.state == OptunaState.WAITING), len(trials))

    def _repeats(self, number: int) -> list[Any]:
        return [trial for trial in self._trials() if trial.user_attrs.get("again") == number]

    @staticmethod
    def _says(trial: Any, told: Told) -> bool:
        same = trial.user_attrs.get("outcome") == told.state.value
        return same and (told.values is None or trial.values == list(told.values))


@contextmanager
def _blamed(key: str, name: str, number: int) -> Iterator[None]:
    """What a sampler or a pruner raises, mostly because of an argument that it looks at late, is the sweep file's."""
    try:
        yield
    except (SpecError, EnvironmentProblem):
        raise
    except Exception as error:
        raise UsageError(
            f"search.{key}: {name} fails at trial {number}: {type(error).__name__}: {error}; see its arguments"
        ) from error


def open_study(
    path: Path, name: str, search: SearchSpec, fixed: Mapping[str, Scalar], grid: Sequence[Mapping[str, Scalar]]
) -> SearchStudy:
    """Open or create the study; grid points that it does not hold yet are put at the end of its queue.

    Args:
        path: the journal; the sweep's lock is held.
        name: of the study, which is the sweep's.
        fixed: parameters with one value, for conditions.
        grid: trials to begin with; what they leave open the sampler chooses.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = BatchedJournal(path)
    with journal.batch():
        study = optuna.create_study(
            storage=JournalStorage(journal),
            study_name=name,
            directions=list(search.directions),
            sampler=make_sampler(search, 0),
            pruner=make_pruner(search),
            load_if_exists=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if not study.metric_names:
                study.set_metric_names(list(search.objectives))
        for params in grid:
            study.enqueue_trial(dict(params), skip_if_exists=True)
    return SearchStudy(study, journal, search, fixed)


def distribution(domain: Domain) -> Any:
    """Optuna's word for a domain."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.options)
    if isinstance(domain, Integers):
        return IntDistribution(domain.low, domain.corners()[1], log=domain.log, step=domain.step)
    return FloatDistribution(domain.low, domain.high, log=domain.log)
