"""What a sweep file may not say of a search, each with its place and a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import SpecError, UsageError
from orchestrator.search.opening import refuse_changed
from orchestrator.search.points import check_search, grid_trials, probes, trial_count
from orchestrator.search.rules import search_rules
from orchestrator.spec import load
from orchestrator.spec_model import SweepSpec
from tests.orchestrator.search.searching import spec_of

GOOD = """\
name: s
config: synthetic
alias: {factor: influence.projection_dim_factor, scope: influence.scope, mode: influence.hessian_mode}
parameters:
  factor: [32, 64]
  scope: [per_prompt, all_selected]
  mode: [inverse]
include: []
search:
  objectives: {fidelity: maximize, mean(timing_s/a): minimize}
  reference: {factor: 32}
  params:
    factor: int(32, 512, log)
    scope: choice(per_prompt, all_selected)
  constraints: [memory <= 75]
  sampler: tpe
"""


def loaded(tmp_path: Path, *changes: tuple[str, str]) -> SweepSpec:
    text = GOOD
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    file = tmp_path / "s.yaml"
    file.write_text(text)
    return load(file)


def test_a_good_search_loads(tmp_path: Path) -> None:
    assert loaded(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("int(32, 512, log)", "int(512, 32)"), "s.yaml:13: search.params.factor: int() holds nothing"),
        (("search:\n", "search:\n  sampelr: x\n"), "search.sampelr: unknown key (did you mean `sampler`?)"),
        (("fidelity: maximize", "fidelity: maximise"), "search.objectives"),
        (("  sampler: tpe", "  trials: 1000000000"), "search.trials: input should be less than or equal to 100000"),
        (("memory <= 75", "memroy <= 75"), "search.constraints[0]: `memroy` is no figure of a point"),
        (("factor: [32, 64]", "factor: [32, 1024]"), "parameters.factor[1]: 1024 is not in int(32, 512, log)"),
        (("mode: [inverse]", "mode: [inverse, identity]"), "parameters.mode: has several values and is not searched"),
        (("include: []", "include: [{mode: identity}]"), "include[0].mode: is not searched"),
        (("include: []", "replicates: {seed: [0, 1]}"), "replicates: a search tries each configuration once"),
        (("include: []", "zip: {a: {scope: [per_prompt]}}"), "zip: cannot be crossed with a search"),
        (("  reference: {factor: 32}\n", ""), "search: fidelity compares each point with a reference"),
        (
            ("reference: {factor: 32}", "reference: {factor: 48}"),
            "search.reference.factor: the references must be among",
        ),
        (
            ("reference: {factor: 32}", "reference: {scope: per_prompt}"),
            "search.reference: a trial with factor=33 has no reference in the grid",
        ),
        (("[per_prompt, all_selected]", "[all_selected]"), "search.reference: a trial with scope=per_prompt has no"),
        (
            ("int(32, 512, log)", "interval(32, 512)\n    other.key: interval(0, 1)"),
            "a reference for every other.key of",
        ),
        (("fidelity: maximize, ", ""), "search.reference: nothing is compared with it"),
        (("sampler: tpe", "sampler: bayes"), "search.sampler: there is no sampler `bayes`"),
        (("sampler: tpe", "sampler: {name: tpe, seed: 1}"), "search.sampler.seed: each trial has a sampler of its own"),
        (("sampler: tpe", "sampler: {name: grid, search_space: {}}"), "search.sampler.search_space: each trial has"),
        (("sampler: tpe", "sampler: cmaes"), "search.sampler: cmaes takes one objective"),
        (("sampler: tpe", "when: {scope: factor < 64, factor: scope == 'x'}"), "search.when: the conditions of"),
        (
            ("sampler: tpe", "when: {scope: fcator < 64}"),
            "`fcator` is no parameter of this search (did you mean `factor`?)",
        ),
        (("sampler: tpe", "prune: median"), "search.prune: only a search for one objective can be pruned"),
        (("scope: choice(", "scoep: choice("), "search.params.scoep: `scoep` is neither an alias"),
    ],
)
def test_each_mistake_has_its_place_and_a_way_out(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        loaded(tmp_path, change)
    assert message in str(caught.value)


def test_the_grid_needs_domains_that_end() -> None:
    spec = spec_of(sampler="grid", params={"x": "int(1, 3)"})
    assert trial_count(spec) == 3
    check_search(spec)


def test_a_grid_too_large_to_be_looked_through_is_refused_at_once() -> None:
    with pytest.raises(SpecError, match="would go through 1000000000 combinations; 10000 are the most"):
        list(map(raised, search_rules(spec_of(sampler="grid", params={"x": "int(1, 1000000000)"}))))


def raised(error: SpecError) -> None:
    raise error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sampler: {name: tpe, n_startup: 3}", "s.yaml:16: search.sampler: TPESampler has no argument `n_startup`"),
        ("sampler: os.path.join", "s.yaml:16: search.sampler: join: join() missing"),
    ],
)
def test_what_optuna_refuses_has_its_place_in_the_file(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_search(loaded(tmp_path, ("sampler: tpe", change)))
    assert message in str(caught.value)


def test_more_points_of_the_grid_than_trials_are_refused() -> None:
    with pytest.raises(SpecError, match="3 points of the grid run first, and there are 2 trials"):
        check_search(spec_of(trials=2, sweep_parameters={"x": [0, 0.5, 1]}))


def test_probes_are_the_corners_and_the_grid_the_first_trials() -> None:
    spec = spec_of(
        params={"x": "interval(0, 1)", "y": "choice(a, b)"},
        when={"y": "x > 0.5"},
        sweep_alias={"x": "a.x", "y": "a.y"},
        sweep_parameters={"x": [0.5], "mode": ["fast"]},
        sweep_include=[{"x": 0.75, "y": "b"}],
    )
    assert grid_trials(spec) == [{"x": 0.5}, {"x": 0.75, "y": "b"}]
    assert [raw.parameters for raw in probes(spec)] == [
        {"mode": "fast", "x": 0.0},
        {"mode": "fast", "x": 1.0, "y": "a"},
        {"mode": "fast", "x": 1.0, "y": "b"},
    ]


def test_a_search_goes_on_with_more_trials_and_not_as_another_search() -> None:
    spec = spec_of()
    before = spec.model_dump(mode="json")
    refuse_changed(None, spec)
    refuse_changed(before, spec_of(trials=40, sampler="random", seed=3))
    with pytest.raises(UsageError, match=r"search\.params of the search s changed"):
        refuse_changed(before, spec_of(params={"x": "interval(0, 2)"}))
    with pytest.raises(UsageError, match="was a search when it ran here"):
        refuse_changed(before, spec.model_copy(update={"search": None}))
