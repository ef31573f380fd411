"""Samplers by name: they search, their seeds are fixed, and what is missing or wrong is said."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner

from orchestrator.errors import EnvironmentProblem, SpecError, UsageError
from orchestrator.search import samplers
from orchestrator.search.results import FITS, Told, TrialState
from orchestrator.search.samplers import make_pruner, make_sampler
from orchestrator.search.spec import SearchSpec
from orchestrator.search.study import SearchStudy, open_study

PARAMS = {"x": "interval(0, 1)", "y": "interval(0.00001, 1, log)", "c": "choice(a, b, c, d)"}


def search_of(**keys: Any) -> SearchSpec:
    return SearchSpec.model_validate({"objectives": {"m/a": "minimize"}, "params": PARAMS, **keys})


def known(params: Mapping[str, Any]) -> float:
    """Least, 0, at x = 0.3, y = 0.01, c = b."""
    return (math.log10(params["y"]) + 2) ** 2 + (params["x"] - 0.3) ** 2 + (0.5 if params["c"] != "b" else 0.0)


def run(folder: Path, search: SearchSpec, trials: int, reopen_every: int = 0) -> list[tuple[dict[str, Any], float]]:
    """Jobs that give a known function at once; the study is closed and opened again every so many trials."""
    study = open_study(folder / "journal", "s", search, {}, [])
    done = []
    for trial in range(trials):
        if reopen_every and trial % reopen_every == 0:
            study = open_study(folder / "journal", "s", search, {}, [])
        done.append(step(study, search))
    return done


def step(study: SearchStudy, search: SearchSpec) -> tuple[dict[str, Any], float]:
    asked = study.ask(lambda number, _params: f"p{number}")
    value = known(asked.params)
    study.tell(asked.number, Told(TrialState.COMPLETE, (value,) * len(search.objectives), {FITS: 0.0}))
    return asked.params, value


class NoJournal:
    """Of a study that is kept in memory, for many trials that need no disk."""

    def batch(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def test_200_trials_of_tpe_come_ten_times_as_near_as_random_ones() -> None:
    """The median over three seeds; measured over five: 5e-5 against 7e-3, a hundredth."""

    def reached(sampler: str, seed: int) -> float:
        search = search_of(sampler=sampler, seed=seed)
        study = SearchStudy(optuna.create_study(), NoJournal(), search, {})
        return min(value for _, value in (step(study, search) for _ in range(200)))

    tpe, at_random = ([reached(sampler, seed) for seed in range(3)] for sampler in ("tpe", "random"))
    assert statistics.median(tpe) < statistics.median(at_random) / 10


@pytest.mark.parametrize(
    "keys",
    [
        {"sampler": {"name": "tpe", "n_startup_trials": 3}},
        {"sampler": "random"},
        {
            "sampler": {"name": "cmaes", "n_startup_trials": 2},
            "params": {"x": PARAMS["x"], "y": PARAMS["y"], "c": "choice(b)"},
        },
        {"sampler": {"name": "nsga2", "population_size": 4}, "objectives": {"m/a": "minimize", "m/b": "maximize"}},
        {"sampler": "optuna.samplers.QMCSampler"},
    ],
    ids=["tpe", "random", "cmaes", "nsga2", "dotted"],
)
def test_a_search_that_is_closed_and_opened_again_proposes_the_same(tmp_path: Path, keys: dict[str, Any]) -> None:
    search = search_of(**keys)
    undisturbed = run(tmp_path / "undisturbed", search, 14)
    assert run(tmp_path / "disturbed", search, 14, reopen_every=3) == undisturbed
    assert run(tmp_path / "other", search.model_copy(update={"seed": 1}), 14) != undisturbed


def test_the_grid_goes_through_every_combination_once(tmp_path: Path) -> None:
    search = search_of(params={"x": "int(0, 2)", "y": "choice(1, 2)", "c": "choice(b)"}, sampler="grid")
    tried = [params for params, _ in run(tmp_path, search, 6, reopen_every=2)]
    assert {(params["x"], params["y"]) for params in tried} == {(x, y) for x in range(3) for y in (1, 2)}


def test_a_sampler_without_its_package_names_what_to_install() -> None:
    needs = samplers.missing_package("gp", lambda package: None if package == "scipy" else object())
    assert needs == "scipy"
    if importlib.util.find_spec("torch") is None:
        with pytest.raises(EnvironmentProblem, match="pip install torch scipy"):
            make_sampler(search_of(sampler="gp"), 0)


def test_an_argument_that_fails_late_is_said_to_be_the_samplers_and_leaves_no_trial(tmp_path: Path) -> None:
    search = search_of(sampler={"name": "tpe", "n_startup_trials": "many"})
    with pytest.raises(UsageError, match=r"search\.sampler: tpe fails at trial 0: TypeError: .*; see its arguments"):
        run(tmp_path, search, 1)
    assert run(tmp_path, search_of(), 1)[0][0].keys() == PARAMS.keys()


def test_an_argument_of_the_pruner_that_fails_late_is_said_to_be_the_pruners(tmp_path: Path) -> None:
    search = search_of(prune={"name": f"{__name__}.Broken", "metric": "m/a"})
    study = open_study(tmp_path / "journal", "s", search, {}, [])
    study.ask(lambda number, _params: f"p{number}")
    with pytest.raises(UsageError, match=r"search\.prune: .*Broken fails at trial 0: ZeroDivisionError"):
        study.report(0, {1: 0.5})


class Broken(BasePruner):  # type: ignore[misc]  # optuna's types are not followed
    def prune(self, study: object, trial: object) -> bool:
        raise ZeroDivisionError((study, trial))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"sampler": {"name": "tpe", "n_start_trials": 3}},
            r"no argument `n_start_trials` \(did you mean `n_startup_trials`\?\)",
        ),
        ({"sampler": "optuna.samplers.NoSuch"}, "cannot import optuna.samplers.NoSuch"),
        ({"sampler": "no_such_package.Sampler"}, "cannot import no_such_package.Sampler"),
        ({"prune": {"name": "percentile"}}, "PercentilePruner: .*percentile"),
    ],
)
def test_what_cannot_be_made_is_said_with_its_key(keys: dict[str, Any], message: str) -> None:
    search = search_of(**keys)
    make = make_pruner if search.prune else lambda search: make_sampler(search, 0)
    with pytest.raises(SpecError, match=message):
        make(search)
