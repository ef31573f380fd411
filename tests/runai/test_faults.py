"""Whatever goes wrong on the way, and whenever the orchestrator dies: no attempt has two workloads, no point runs twice."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.backends.fake_files import fail
from orchestrator.backends.runai.listing import PAGE
from orchestrator.model import PointState
from tests.orchestrator.driving import Died
from tests.orchestrator.test_loop import CUDA_OOM
from tests.runai.faults import Fate, Fault, accepted_then, accepted_then_dropped, hangs, rejected, slow
from tests.runai.imaginary import Act
from tests.runai.knobs import UNVERIFIED, Knobs, settings
from tests.runai.rehearsal import Stage, requests

RUNS, PARTS = 200, 8
"""Randomised runs, in parts that may run side by side."""
CREATE = r"/workloads/(trainings|distributed)$"
ANYTHING = ""


def small_pool_is_too_small(_folder: Path, pool: str) -> Act:
    return Act(fail(1, log=CUDA_OOM), code=1) if pool == "h100" else Act()


# ---- one at a time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "workloads"),
    [
        (rejected(503), 1),
        (rejected(429), 1),
        (accepted_then(503), 1),
        (accepted_then(500), 1),
        (Fault(Fate.GATEWAY, accepted=True, status=502), 1),
        (Fault(Fate.GATEWAY, status=504), 1),
        (accepted_then_dropped(), 1),
        (Fault(Fate.DROP), 1),
        (hangs(accepted=True), 1),
        (hangs(accepted=False), 1),
        (slow(3.0), 1),
        (Fault(Fate.DROP, times=4), 1),
        (accepted_then(503, method="POST", path=r"/token$", times=2), 1),
        (Fault(Fate.DROP, method="GET", path=r"/workloads$", times=3), 1),
        (hangs(accepted=False, method="GET", path=ANYTHING, times=3), 1),
    ],
    ids=lambda value: f"{value.fate}-{value.status}-{value.accepted}-{value.times}" if isinstance(value, Fault) else "",
)
def test_a_fault_on_the_way_costs_no_attempt_and_makes_no_second_workload(
    quick_path: Path, fault: Fault, workloads: int
) -> None:
    stage = Stage(quick_path)
    stage.plane.faults.add(replace(fault))
    view = stage.drive()
    stage.check()
    assert stage.plane.faults.met
    assert stage.runs(view) == {"point-0": [("h100", "completed")]}
    assert len(stage.plane.workloads) == workloads


def test_a_refusal_fails_the_point_in_the_servers_words(quick_path: Path) -> None:
    stage = Stage(quick_path)
    stage.plane.faults.add(rejected(400, issues=("spec.backoffLimit",), times=9))
    view = stage.drive()
    assert view.points[0].state is PointState.FAILED
    assert "spec.backoffLimit" in (view.points[0].reason or "")
    assert stage.plane.workloads == {}


def test_a_revoked_token_is_replaced_and_nothing_is_submitted_twice(quick_path: Path) -> None:
    stage = Stage(quick_path)
    stage.plane.faults.add(
        Fault(method="GET", path="projects", accepted=True, afterwards=stage.plane.tokens.revoke_all)
    )
    view = stage.drive()
    stage.check()
    assert view.points[0].state is PointState.SUCCEEDED
    assert len(requests(stage, "POST", "/trainings")) == 2, "the first one met a token that was not valid any more"
    assert len(stage.plane.workloads) == 1


def test_phases_never_seen_before_change_nothing(quick_path: Path) -> None:
    stage = Stage(quick_path, lambda _folder, _pool: Act(seconds=3.0))
    stage.plane.faults.phases["*"] = "Reconciling"
    ticks = 0

    def observe(_view: object) -> None:
        nonlocal ticks
        ticks += 1
        if ticks > 30:
            stage.plane.faults.phases.clear()

    view = stage.drive(observe=observe)
    stage.check()
    assert stage.runs(view) == {"point-0": [("h100", "completed")]}
    assert ticks > 30


@pytest.mark.parametrize("leaving", [15, 60])
def test_a_page_boundary_that_moves_loses_no_workload(quick_path: Path, leaving: int) -> None:
    """One of ours is the first on the second page; before that is asked for, so many of the first page go away."""
    stage = Stage(quick_path, lambda _folder, _pool: Act(seconds=2.0), points=2)
    others = [stage.plane.somebody_submits(f"s-{index}", "h200", "run", "very-low", 1) for index in range(PAGE - 1)]

    def leave() -> None:
        for other in others[:leaving]:
            stage.plane.forget(other.id)

    stage.plane.faults.add(Fault(method="GET", path="workloads$", accepted=True, afterwards=leave))
    view = stage.drive()
    stage.check()
    assert stage.plane.faults.met
    assert set(map(str, stage.runs(view).values())) == {"[('h100', 'completed')]"}


def test_all_points_are_watched_by_one_list_a_cycle(quick_path: Path) -> None:
    counts = []
    for points in (1, 2):
        stage = Stage(quick_path / str(points), lambda _folder, _pool: Act(seconds=3.0), points=points)
        stage.drive()
        counts.append(len(requests(stage, "GET", "/api/v1/workloads")))
    assert counts[0] == counts[1]


def test_two_nodes_are_one_distributed_workload_and_the_job_runs_once(quick_path: Path) -> None:
    stage = Stage(quick_path, gpus=16, knobs=Knobs(mpi_defaults="refused"))
    view = stage.drive()
    stage.check()
    assert stage.runs(view) == {"point-0": [("h100", "completed")]}
    (workload,) = stage.plane.workloads.values()
    assert (workload.kind, workload.pod_gpus) == ("distributed", (8, 8))
    assert {pod.node for pod in workload.pods} == {"h100-0", "h100-1"}


# ---- dying ---------------------------------------------------------------------------------------------------------


ESCALATED = [("h100", "gpu_oom"), ("h200", "completed")]
UNHELPFUL = Knobs(duplicate_status=400, listing_lag=2.0, env_in_list="hidden")


@pytest.mark.parametrize(
    ("knobs", "script", "runs"),
    [(Knobs(), small_pool_is_too_small, ESCALATED), (UNHELPFUL, lambda _folder, _pool: Act(), [("h100", "completed")])],
    ids=["defaults", "unhelpful"],
)
def test_dying_around_any_request_never_makes_a_second_workload(
    quick_path: Path, knobs: Knobs, script: Callable[[Path, str], Act], runs: list[tuple[str, str]]
) -> None:
    """Before each request reaches the control plane, and after it has had its effect and before anybody learns of it."""
    deaths = 0
    for requests_left in range(1_000):
        stage = Stage(quick_path / str(requests_left), script, knobs)
        stage.requests_left.left = requests_left
        try:
            stage.drive()
            break
        except Died:
            deaths += 1
        stage.requests_left.left = -1
        view = stage.drive()
        stage.check()
        assert stage.runs(view) == {"point-0": runs}, f"after {requests_left}"
        assert len(stage.plane.workloads) == len(runs)
    assert deaths >= 15, "the sweep made too few requests for this test to mean anything"


def test_dying_around_any_step_of_the_protocol_never_makes_a_second_workload(quick_path: Path) -> None:
    """Each call into the store or the backend, before it and after it."""
    deaths = 0
    for calls in range(1_000):
        stage = Stage(quick_path / str(calls))
        try:
            stage.drive(die_after=calls)
            break
        except Died:
            deaths += 1
        view = stage.drive()
        stage.check()
        assert stage.runs(view) == {"point-0": [("h100", "completed")]}, f"after {calls}"
        assert len(stage.plane.workloads) == 1
    assert deaths > 40, "the sweep made too few calls for this test to mean anything"


# ---- at random -----------------------------------------------------------------------------------------------------


def random_knobs(dice: random.Random) -> Knobs:
    return Knobs(**{name: dice.choice(settings(name)) for name in UNVERIFIED})


def random_fault(dice: random.Random, stage: Stage) -> Fault:
    """Anything but a refusal for good."""
    make = dice.choice(
        [
            lambda **more: rejected(dice.choice([429, 500, 502, 503]), **more),
            lambda **more: accepted_then(dice.choice([500, 502, 503, 504]), **more),
            lambda **more: Fault(Fate.GATEWAY, accepted=dice.random() < 0.5, status=502, **more),
            lambda **more: Fault(Fate.DROP, accepted=dice.random() < 0.5, **more),
            lambda **more: hangs(accepted=dice.random() < 0.5, **more),
            lambda **more: slow(dice.uniform(0.5, 4.0), **more),
            lambda **more: Fault(accepted=True, afterwards=stage.plane.tokens.revoke_all, **more),
        ]
    )
    method, path = dice.choice([("POST", CREATE), ("POST", CREATE), ("POST", ANYTHING), ("GET", ANYTHING)])
    return make(method=method, path=path, times=dice.randint(1, 3))


@pytest.mark.parametrize("part", range(PARTS))
def test_no_duplicate_in_randomised_runs(quick_path: Path, part: int) -> None:
    for seed in range(part, RUNS, PARTS):
        dice = random.Random(seed)
        script = small_pool_is_too_small if dice.random() < 0.3 else lambda _folder, _pool: Act()
        stage = Stage(quick_path / str(seed), script, random_knobs(dice), points=dice.choice([1, 1, 2]))
        for _ in range(dice.randint(1, 4)):
            stage.plane.faults.add(random_fault(dice, stage))
        for _ in range(dice.randint(0, 3)):
            stage.requests_left.left = dice.choice([-1, dice.randint(0, 25)])
            try:
                stage.drive(die_after=dice.randint(0, 60))
            except Died:
                continue
        stage.requests_left.left = -1
        view = stage.drive()
        stage.check()
        assert {point.state for point in view.points} == {PointState.SUCCEEDED}, (seed, stage.rehearsal.warnings)
        for point in view.points:
            assert [attempt.verdict for attempt in view.history(point)].count("completed") == 1, seed
