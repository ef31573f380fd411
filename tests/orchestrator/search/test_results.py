"""The best trial, the front and its knee, what each parameter weighs, and a search in sentences."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.search.reporting import importance, search_snapshot
from orchestrator.search.results import TrialRow, TrialState, best, front, knee
from orchestrator.search.said import plan_lines, search_json, search_lines
from tests.orchestrator.search.searching import spec_of

BOTH = ("maximize", "minimize")
pairs = st.lists(st.tuples(st.integers(0, 9).map(float), st.integers(0, 9).map(float)), min_size=1, max_size=12)


def row(number: int, values: tuple[float, ...] | None, **keys: Any) -> TrialRow:
    state = TrialState.COMPLETE if values is not None else TrialState.FAILED
    keys = {"point": f"p{number}", "params": {"x": number / 10}, "state": state, "values": values} | keys
    return TrialRow("s", number, asked_at=0.0, **keys)


@given(pairs)
def test_the_front_is_what_nothing_beats_and_everything_else_is_beaten_by_it(values: list[tuple[float, float]]) -> None:
    rows = [row(number, value) for number, value in enumerate(values)]
    good = {found.values for found in front(rows, BOTH)}

    def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a[0] >= b[0] and a[1] <= b[1] and a != b

    assert good
    for value in values:
        assert (value in good) == (not any(beats(other, value) for other in values))


@given(pairs)
def test_the_knee_lies_on_the_front(values: list[tuple[float, float]]) -> None:
    good = front([row(number, value) for number, value in enumerate(values)], BOTH)
    middle = knee(good, BOTH)
    assert (middle is None) == (len(good) < 3)
    assert middle is None or middle in good


def test_the_knee_is_where_both_are_nearly_at_their_best() -> None:
    rows = [row(0, (1.0, 10.0)), row(1, (0.95, 1.0)), row(2, (0.1, 0.5)), row(3, (0.97, 6.0))]
    middle = knee(front(rows, BOTH), BOTH)
    assert middle is not None
    assert middle.number == 1


def test_infeasible_failed_and_pruned_trials_are_never_the_best() -> None:
    states = [TrialState.INFEASIBLE, TrialState.FAILED, TrialState.PRUNED, TrialState.OPEN]
    rows = [row(number, (0.0,), state=state) for number, state in enumerate(states)] + [row(4, (5.0,))]
    found = best(rows, ("minimize",))
    assert found is not None
    assert found.number == 4
    assert [kept.number for kept in front(rows, ("minimize",))] == [4]


def test_a_configuration_stands_once_on_the_front() -> None:
    rows = [row(0, (1.0, 1.0), point="p"), row(1, (1.0, 1.0), point="p")]
    assert [kept.number for kept in front(rows, BOTH)] == [0]


def test_the_parameter_that_decides_weighs_most() -> None:
    search = spec_of(params={"x": "interval(0, 1)", "y": "interval(0, 1)"}, sweep_alias={"x": "a.x", "y": "a.y"}).search
    assert search is not None
    rows = [row(n, ((n / 40 - 0.3) ** 2,), params={"x": n / 40, "y": (n * 17 % 40) / 40}) for n in range(40)]
    shares = importance(search, rows)["m/loss"]
    assert shares["x"] > 0.8
    assert importance(search, rows[:3]) == {}
    assert importance(search, [row(n, (1.0,), params={"x": n / 40, "y": 0.5}) for n in range(40)]) == {}


def test_plan_says_what_the_search_will_do() -> None:
    spec = spec_of(
        params={"x": "interval(0, 1)", "y": "choice(a, b)"},
        when={"y": "x > 0.5"},
        constraints=["memory <= 75"],
        sweep_alias={"x": "a.x", "y": "a.y"},
        sweep_parameters={"x": [0.5]},
        prune="median",
    )
    assert plan_lines(spec) == [
        "searches 4 trials to minimize m/loss; sampler tpe, seed 0",
        "  x: interval(0, 1)",
        "  y: choice(a, b), where x > 0.5",
        "  subject to memory <= 75",
        "  begins with 1 of the grid: x=0.5",
        "  jobs that look hopeless to the pruner median are ended early",
        "  each configuration runs once: a trial that repeats one takes its result",
    ]


def test_status_names_the_best_so_far_and_what_pruning_saved() -> None:
    rows = [row(0, (0.5,)), row(1, (0.25,)), row(2, None, state=TrialState.PRUNED, saved_s=1800.0)]
    assert search_lines(spec_of(), rows, {"p1": "job-1"}, gpus=8) == [
        "search: 3 of 4 trials, 2 complete, 1 pruned",
        "  pruning saved 4.0 GPU-hours",
        "  best so far: job-1: m/loss 0.25 (x=0.1)",
    ]


def test_status_names_the_front_and_its_knee() -> None:
    spec = spec_of(objectives={"m/a": "maximize", "m/b": "minimize"})
    rows = [row(0, (1.0, 10.0)), row(1, (0.95, 1.0)), row(2, (0.1, 0.5))]
    names = {f"p{n}": f"job-{n}" for n in range(3)}
    assert search_lines(spec, rows, names)[1:] == [
        "  front of 3:",
        "    job-0: m/a 1, m/b 10 (x=0)",
        "    job-1: m/a 0.95, m/b 1 (x=0.1)  <- knee",
        "    job-2: m/a 0.1, m/b 0.5 (x=0.2)",
    ]
    found = search_json(spec, rows)
    assert found is not None
    assert (found["front"], found["knee"], found["best"], found["wanted"]) == ([0, 1, 2], 1, None, 4)
    drawn = search_snapshot(spec, rows, names)
    assert drawn is not None
    assert (drawn.front, drawn.knee, drawn.trials[1].name) == ((0, 1, 2), 1, "job-1")


def test_a_sweep_without_a_search_says_nothing_of_one() -> None:
    spec = spec_of().model_copy(update={"search": None})
    assert (plan_lines(spec), search_lines(spec, [], {}), search_json(spec, []), search_snapshot(spec, [], {})) == (
        [],
        [],
        None,
        None,
    )
