"""The search beside the loop: what trials are told, and that dying at any step changes nothing."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from orchestrator.backends.base import JobRef, JobRequest, JobState
from orchestrator.backends.fake import Play
from orchestrator.backends.fake_files import fail
from orchestrator.ledger import View
from orchestrator.model import PointState
from orchestrator.search.results import FITS, TrialState
from orchestrator.spec_model import SweepSpec
from tests.orchestrator.search.searching import (
    Died,
    LiveBackend,
    SearchRehearsal,
    bowl,
    giving,
    live,
    params_of,
    scoring,
    spec_of,
)
from tests.orchestrator.test_loop import CUDA_OOM

OPEN, COMPLETE, INFEASIBLE = TrialState.OPEN, TrialState.COMPLETE, TrialState.INFEASIBLE


def test_a_search_asks_for_its_trials_runs_their_points_and_tells_them_their_values(tmp_path: Path) -> None:
    rehearsal = SearchRehearsal(tmp_path)
    view = rehearsal.drive()
    assert [point.state for point in view.points] == [PointState.SUCCEEDED] * 4
    assert [row.number for row in rehearsal.trials] == [0, 1, 2, 3]
    for row in rehearsal.trials:
        assert row.state is COMPLETE
        assert row.values == (pytest.approx((row.params["x"] - 0.3) ** 2),)
    assert [(n, point, params, values) for n, point, params, _, values in rehearsal.journal()] == [
        (row.number, row.point, row.params, list(row.values or ())) for row in rehearsal.trials
    ]


def test_dying_at_any_step_of_the_protocol_leaves_the_trials_of_an_undisturbed_search(tmp_path: Path) -> None:
    """Before and after each of: ask, bind, note what came of it, tell. The trial after it shows that the sampler goes on."""
    spec = spec_of(trials=2, sampler={"name": "tpe", "n_startup_trials": 1})
    undisturbed = SearchRehearsal(tmp_path / "undisturbed", spec)
    undisturbed.drive()
    for calls in range(2 * 4):
        rehearsal = SearchRehearsal(tmp_path / str(calls), spec)
        with pytest.raises(Died):
            rehearsal.drive(die_after=calls, at=("ask", "put_trial", "settle_trial", "tell"))
        view = rehearsal.drive()
        assert rehearsal.said() == undisturbed.said(), f"after {calls} calls"
        assert rehearsal.journal() == undisturbed.journal(), f"after {calls} calls"
        assert [len(view.history(point)) for point in view.points] == [1, 1], f"after {calls} calls"


@pytest.mark.parametrize("calls", [5, 28, 53, 76, 101, 124, 149])
def test_dying_anywhere_leaves_the_trials_of_an_undisturbed_search(tmp_path: Path, calls: int) -> None:
    spec = spec_of(trials=2, sampler={"name": "tpe", "n_startup_trials": 1})
    undisturbed, rehearsal = (SearchRehearsal(tmp_path / name, spec) for name in ("undisturbed", "killed"))
    undisturbed.drive()
    with pytest.raises(Died):
        rehearsal.drive(die_after=calls)
    rehearsal.drive()
    assert (rehearsal.said(), rehearsal.journal()) == (undisturbed.said(), undisturbed.journal())


def test_dying_again_and_again_with_two_at_once_forgets_no_trial_and_makes_none_twice(tmp_path: Path) -> None:
    spec = spec_of(trials=6, sweep_budget={"max_parallel": 2})
    rehearsal = SearchRehearsal(tmp_path, spec)
    for calls in (4, 13, 30, 51):
        with pytest.raises(Died):
            rehearsal.drive(die_after=calls)
    view = rehearsal.drive()
    assert [row.number for row in rehearsal.trials] == list(range(6))
    assert {row.state for row in rehearsal.trials} == {COMPLETE}
    assert len(rehearsal.journal()) == 6
    assert len({row.point for row in rehearsal.trials}) == len(view.points) == 6


def test_no_more_trials_are_open_than_may_run_at_once(tmp_path: Path) -> None:
    rehearsal = SearchRehearsal(tmp_path, spec_of(trials=7, sweep_budget={"max_parallel": 3}))
    open_at: list[int] = []
    rehearsal.drive(observe=lambda _view: open_at.append(sum(row.state is OPEN for row in rehearsal.trials)))
    assert max(open_at) == 3
    assert len(rehearsal.trials) == 7


def test_trials_that_repeat_a_running_point_wait_for_their_place_too(tmp_path: Path) -> None:
    """Two configurations and three places: else all trials were asked for before any has a result."""
    keys = {"params": {"x": "choice(0, 1)"}, "trials": 9, "sampler": "random", "sweep_budget": {"max_parallel": 3}}
    rehearsal = SearchRehearsal(tmp_path, spec_of(**keys))
    open_at: list[int] = []
    rehearsal.drive(observe=lambda _view: open_at.append(sum(row.state is OPEN for row in rehearsal.trials)))
    assert max(open_at) == 3
    assert [row.state for row in rehearsal.trials] == [COMPLETE] * 9


def test_the_points_of_the_grid_run_first_and_what_they_leave_open_is_chosen(tmp_path: Path) -> None:
    spec = spec_of(
        params={"x": "interval(0, 1)", "y": "choice(a, b)"},
        sweep_parameters={"x": [0.5, 0.25]},
        sweep_include=[{"x": 1, "y": "b"}],
        sweep_alias={"x": "a.x", "y": "a.y"},
    )
    rehearsal = SearchRehearsal(tmp_path, spec)
    rehearsal.drive()
    first = [row.params for row in rehearsal.trials[:3]]
    assert [params["x"] for params in first] == [0.5, 0.25, 1]
    assert first[2]["y"] == "b"
    assert {params["y"] for params in first} <= {"a", "b"}


def test_parameters_with_one_value_are_in_every_point_and_in_no_trial(tmp_path: Path) -> None:
    rehearsal = SearchRehearsal(tmp_path, spec_of(sweep_parameters={"mode": ["fast"]}))
    view = rehearsal.drive()
    assert {point.parameters["mode"] for point in view.points} == {"fast"}
    assert all(set(row.params) == {"x"} for row in rehearsal.trials)


def test_a_configuration_that_was_tried_takes_its_result_and_runs_no_second_time(tmp_path: Path) -> None:
    rehearsal = SearchRehearsal(tmp_path, spec_of(params={"x": "choice(0, 1)"}, trials=8, sampler="random"))
    view = rehearsal.drive()
    assert len(view.points) == 2
    assert sum(rehearsal.cluster.submissions.values()) == 2
    assert [row.values for row in rehearsal.trials] == [
        (pytest.approx((row.params["x"] - 0.3) ** 2),) for row in rehearsal.trials
    ]


def test_a_parameter_is_set_only_where_its_condition_holds(tmp_path: Path) -> None:
    spec = spec_of(
        params={"x": "interval(0, 1)", "y": "int(1, 3)"},
        when={"y": "x > 0.5"},
        sweep_alias={"x": "a.x", "y": "a.y"},
        trials=8,
        sampler="random",
    )
    rehearsal = SearchRehearsal(tmp_path, spec)
    view = rehearsal.drive()
    assert {("y" in row.params) for row in rehearsal.trials} == {True, False}
    assert all(("y" in row.params) == (row.params["x"] > 0.5) for row in rehearsal.trials)
    assert all(("y" in point.parameters) == (point.parameters["x"] > 0.5) for point in view.points)


def test_what_exclude_names_is_infeasible_and_never_runs(tmp_path: Path) -> None:
    spec = spec_of(trials=8, sampler="random", sweep_exclude=["x > 0.5"])
    rehearsal = SearchRehearsal(tmp_path, spec)
    view = rehearsal.drive()
    excluded = [row for row in rehearsal.trials if row.params["x"] > 0.5]
    assert excluded
    assert {(row.state, row.point, row.constraints[FITS]) for row in excluded} == {(INFEASIBLE, None, 1.0)}
    assert len(view.points) == 8 - len(excluded)


def oom_above(limit: float, pools: tuple[str, ...]):  # type: ignore[no-untyped-def]
    def script(request, earlier):  # type: ignore[no-untyped-def]
        inner = giving(bowl)
        play = inner(request, earlier)
        too_large = params_of(request)["x"] > limit and request.pool and request.pool.name in pools
        return Play(on_end=fail(1, log=CUDA_OOM)) if too_large else play

    return script


@pytest.mark.parametrize("sampler", ["random", {"name": "tpe", "n_startup_trials": 2}, "nsga2"])
def test_memory_that_fits_no_pool_is_infeasible_and_has_no_values(tmp_path: Path, sampler: object) -> None:
    spec = spec_of(trials=6, sampler=sampler, sweep_include=[{"x": 0.25}, {"x": 0.75}])
    rehearsal = SearchRehearsal(tmp_path, spec, oom_above(0.5, ("h100", "h200")), gpus=8)
    rehearsal.drive()
    bad = [row for row in rehearsal.trials if row.params["x"] > 0.5]
    assert bad
    assert all((row.state, row.values, row.constraints[FITS]) == (INFEASIBLE, None, 1.0) for row in bad)
    told = {number: (state, values) for number, _, _, state, values in rehearsal.journal()}
    # Optuna's genetic samplers learn from completed trials alone: they get the worst values so far
    assert told[1] == (("COMPLETE", told[0][1]) if sampler == "nsga2" else ("PRUNED", None))


def test_an_out_of_memory_that_climbed_the_ladder_is_its_final_result(tmp_path: Path) -> None:
    spec = spec_of(trials=2, sweep_include=[{"x": 0.75}])
    rehearsal = SearchRehearsal(tmp_path, spec, oom_above(0.5, ("h100",)), gpus=8)
    view = rehearsal.drive()
    row = rehearsal.trials[0]
    assert (row.state, row.values) == (COMPLETE, (pytest.approx(0.45**2),))
    assert [attempt.pool for attempt in view.history(view.points[0])] == ["h100", "h200"]


def test_a_failed_point_is_told_as_failed_and_the_search_goes_on(tmp_path: Path) -> None:
    spec = spec_of(trials=3, sweep_include=[{"x": 0.75}, {"x": 0.25}])
    script = giving(bowl, lambda params: Play(on_end=fail(1, log="ValueError: no\n")) if params["x"] == 0.75 else None)
    rehearsal = SearchRehearsal(tmp_path, spec, script)
    rehearsal.drive()
    assert [row.state for row in rehearsal.trials] == [TrialState.FAILED, COMPLETE, COMPLETE]
    assert rehearsal.journal()[0][3] == "FAIL"


def test_an_objective_that_was_not_logged_fails_the_trial_and_says_so(tmp_path: Path) -> None:
    rehearsal = SearchRehearsal(tmp_path, spec_of(trials=1, objectives={"m/nothing": "minimize"}))
    view = rehearsal.drive()
    assert view.points[0].state is PointState.SUCCEEDED
    assert (rehearsal.trials[0].state, rehearsal.trials[0].reason) == (TrialState.FAILED, "m/nothing was not logged")


def test_what_is_no_number_or_never_logged_fails_trials_without_an_end_to_the_search(tmp_path: Path) -> None:
    keys = {"trials": 3, "constraints": ["m/none <= 1"], "sweep_include": [{"x": 0.25}]}
    script = giving(lambda params: {"m/loss": float("nan") if params["x"] == 0.25 else 1.0})
    rehearsal = SearchRehearsal(tmp_path, spec_of(**keys), script)
    rehearsal.drive()
    assert [row.reason for row in rehearsal.trials] == ["m/loss is nan", *["m/none was not logged"] * 2]
    assert {row.state for row in rehearsal.trials} == {TrialState.FAILED}


def test_a_broken_constraint_makes_a_trial_infeasible_with_its_values(tmp_path: Path) -> None:
    spec = spec_of(constraints=["m/cost <= 0.5"], sweep_include=[{"x": 0.75}, {"x": 0.25}], trials=2)
    rehearsal = SearchRehearsal(tmp_path, spec)
    rehearsal.drive()
    first, second = rehearsal.trials
    assert (first.state, first.constraints["m/cost <= 0.5"], first.reason) == (INFEASIBLE, 0.25, "breaks m/cost <= 0.5")
    assert first.values is not None
    assert (second.state, second.constraints["m/cost <= 0.5"]) == (COMPLETE, -0.25)


def test_a_budget_stops_the_asking_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    timeline = ((0.0, JobState.RUNNING), (3.6, JobState.ENDED))
    inner = giving(bowl)

    def script(request, earlier):  # type: ignore[no-untyped-def]
        return Play(timeline=timeline, on_end=inner(request, earlier).on_end)

    keys = {"trials": 4, "sweep_resources": {"gpus": 1, "time": 3.6}}
    rehearsal = SearchRehearsal(tmp_path, spec_of(**keys, sweep_budget={"gpu_hours": 0.0022}), script, gpus=1)
    view = rehearsal.drive()
    assert view.stopped is not None
    assert [row.state for row in rehearsal.trials] == [COMPLETE, COMPLETE, OPEN]
    rehearsal.spec = spec_of(**keys, sweep_budget={"gpu_hours": 1})
    rehearsal.start()
    rehearsal.drive()
    assert [row.state for row in rehearsal.trials] == [COMPLETE] * 4


def test_a_cancelled_search_asks_for_nothing_more_until_it_is_started_again(tmp_path: Path) -> None:
    rehearsal = SearchRehearsal(tmp_path)

    def observe(_view: object) -> None:
        if len(rehearsal.trials) == 2 and not rehearsal.store.search_ended("s"):
            rehearsal.store.cancel_sweep("s")

    rehearsal.drive(observe=observe)
    assert [row.state for row in rehearsal.trials] == [COMPLETE, TrialState.FAILED]
    rehearsal.drive()
    assert len(rehearsal.trials) == 2
    rehearsal.start()
    rehearsal.drive()
    assert len(rehearsal.trials) == 4


def test_a_rerun_point_tells_its_new_result_as_another_trial(tmp_path: Path) -> None:
    broken = {"now": True}
    spec = spec_of(trials=2, sweep_include=[{"x": 0.75}])
    script = giving(
        bowl, lambda params: Play(on_end=fail(1, log="")) if params["x"] == 0.75 and broken["now"] else None
    )
    rehearsal = SearchRehearsal(tmp_path, spec, script)
    view = rehearsal.drive()
    assert rehearsal.trials[0].state is TrialState.FAILED
    broken["now"] = False
    assert rehearsal.store.rerun(view.points[0])
    rehearsal.drive()
    rehearsal.drive()
    assert [row.state for row in rehearsal.trials] == [COMPLETE, COMPLETE]
    assert [entry[3] for entry in rehearsal.journal()] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert rehearsal.journal()[2][4] == [pytest.approx(0.45**2)]


def test_a_hopeless_job_is_ended_and_the_time_it_would_have_taken_is_counted(tmp_path: Path) -> None:
    """Jobs log a step a second for four seconds; those above a half are worse than the median from the first step on."""
    rehearsal = SearchRehearsal(tmp_path, prunable(), live(bowl, 4), gpus=8, steps=4, backend=LiveBackend)
    view = rehearsal.drive()
    by_number = {row.number: row for row in rehearsal.trials}
    good, bad = [by_number[n] for n in (0, 1, 3)], by_number[2]
    assert [row.state for row in good] == [COMPLETE] * 3
    assert (bad.state, bad.pruned_at, bad.values) == (TrialState.PRUNED, 1, None)
    assert bad.saved_s == pytest.approx(3.0)
    (pruned,) = [point for point in view.points if point.state is PointState.PRUNED]
    assert (pruned.id, pruned.reason) == (bad.point, "pruned after step 1")
    assert rehearsal.journal()[2][3] == "PRUNED"


def test_what_pruning_saved_is_counted_once_a_job_and_not_for_one_that_runs_again(tmp_path: Path) -> None:
    spec = prunable(params={"x": "choice(0.3, 0.4, 0.9, 0.35)"}, trials=20)
    rehearsal = SearchRehearsal(tmp_path, spec, live(bowl, 4), gpus=8, steps=4, backend=LiveBackend)
    view = rehearsal.drive()
    (pruned,) = [point for point in view.points if point.state is PointState.PRUNED]
    its = [row for row in rehearsal.trials if row.point == pruned.id]
    assert len(its) > 1
    assert [row.saved_s for row in its] == [pytest.approx(3.0), *[None] * (len(its) - 1)]
    assert rehearsal.store.rerun(pruned)
    assert {(row.state, row.saved_s) for row in rehearsal.trials if row.point == pruned.id} == {(OPEN, None)}


def test_a_job_that_ended_well_before_its_end_was_asked_for_is_complete(tmp_path: Path) -> None:
    rehearsal = SearchRehearsal(tmp_path, prunable(), live(bowl, 4), steps=4, backend=Unstoppable)
    rehearsal.drive()
    assert [row.state for row in rehearsal.trials] == [COMPLETE] * 4
    assert rehearsal.trials[2].pruned_at == 1
    assert rehearsal.trials[2].values == (pytest.approx(0.6**2),)


class Unstoppable(LiveBackend):
    def cancel(self, job: JobRef) -> None:
        """Too late."""


@pytest.mark.parametrize("call", ["report", "prune_trial", "cancel", "tell"])
def test_dying_while_a_job_is_pruned_prunes_it_all_the_same(tmp_path: Path, call: str) -> None:
    undisturbed, rehearsal = (
        SearchRehearsal(tmp_path / name, prunable(), live(bowl, 4), steps=4, backend=LiveBackend)
        for name in ("undisturbed", "killed")
    )
    undisturbed.drive()
    for calls in (0, 1):
        if call in ("report", "tell"):
            calls += 20 if call == "report" else 4
        with contextlib.suppress(Died):
            rehearsal.drive(die_after=calls, at=(call,))
    rehearsal.drive()
    assert [row.state for row in rehearsal.trials] == [row.state for row in undisturbed.trials]
    assert [entry[3] for entry in rehearsal.journal()] == [entry[3] for entry in undisturbed.journal()]
    assert [row.params for row in rehearsal.trials] == [row.params for row in undisturbed.trials]


def prunable(**keys: object) -> SweepSpec:
    own = {"trials": 4, "sampler": "random", "prune": {"name": "median", "n_startup_trials": 2, "n_warmup_steps": 0}}
    return spec_of(**{**own, "sweep_include": [{"x": 0.3}, {"x": 0.4}, {"x": 0.9}, {"x": 0.35}], **keys})


def compared(**keys: object) -> SweepSpec:
    """A search for fidelity, against x = 0."""
    own = {"objectives": {"fidelity": "maximize"}, "reference": {"x": 0}, "sampler": "random", "trials": 2}
    fixed = {"sweep_parameters": {"x": [0], "scored": [True]}, "sweep_budget": {"max_parallel": 2}}
    return spec_of(**{**own, **fixed, **keys})


def test_fidelity_is_the_rank_correlation_with_the_reference_and_waits_for_it(tmp_path: Path) -> None:
    """The reference takes longer than the point that is compared with it, whose first two scores change places."""
    script = scoring(
        lambda params: [1.0, 2.0, 3.0, 4.0] if params["x"] == 0 else [2.0, 1.0, 30.0, 40.0],
        lambda params: 20.0 if params["x"] == 0 else 1.0,
    )
    rehearsal = SearchRehearsal(tmp_path, compared(), script)
    waiting: list[bool] = []

    def observe(view: View) -> None:
        states = [point.state for point in view.points]
        waiting.append(states == [PointState.ACTIVE, PointState.SUCCEEDED] and rehearsal.trials[1].state is OPEN)

    rehearsal.drive(observe=observe)
    assert any(waiting)
    assert [row.values for row in rehearsal.trials] == [(pytest.approx(1.0),), (pytest.approx(0.8),)]


def test_without_its_reference_a_trial_fails_and_says_why(tmp_path: Path) -> None:
    scores = scoring(lambda _params: [1.0, 2.0], lambda _params: 1.0)

    def script(request: JobRequest, earlier: int) -> Play:
        return Play(on_end=fail(1, log="")) if params_of(request)["x"] == 0 else scores(request, earlier)

    rehearsal = SearchRehearsal(tmp_path, compared(), script)
    rehearsal.drive()
    assert [row.state for row in rehearsal.trials] == [TrialState.FAILED] * 2
    assert rehearsal.trials[1].reason == "its reference s-t0 failed"
