"""The order of steps, and what a failure or the end of the time does to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.trainer_ext.bench.step.values import INLINE, OFF, SEPARATE, make_plan, make_row
from trainer_ext.bench.step.cases import StepCase
from trainer_ext.bench.step.events import Event
from trainer_ext.bench.step.plan import StepPlan
from trainer_ext.bench.step.report import StepRow
from trainer_ext.bench.step.schedule import run_schedule


class Run:
    """Runs a plan on a clock that moves by what each step says it takes."""

    def __init__(self, seconds: Callable[[StepCase, int], float]) -> None:
        self.now, self.seconds = 0.0, seconds
        self.events: list[Event] = []

    def step(self, case: StepCase, number: int) -> StepRow:
        self.now += self.seconds(case, number)
        return make_row(case, number)

    def go(self, plan: StepPlan, agree: Callable[[bool], bool] = bool) -> list[Any]:
        run_schedule(self.step, plan, self.events.append, seconds_gone=lambda: self.now, agree=agree)
        return [(event.row.case, event.row.step) if event.row else event.failure for event in self.events]


def test_every_case_runs_its_steps_in_a_row() -> None:
    assert Run(lambda *_: 1.0).go(make_plan()) == [
        *((OFF.name, step) for step in (1, 2)),
        *((INLINE.name, step) for step in (1, 2)),
        *((SEPARATE.name, step) for step in (1, 2)),
    ]


def test_no_step_begins_that_would_end_after_the_budget() -> None:
    told = Run(lambda *_: 30.0).go(make_plan(budget_s=100.0))
    assert told == [
        ("off", 1),
        ("off", 2),
        (INLINE.name, 1),
        f"stopped before {INLINE.name}, step 2: the budget of 100 s is spent",
    ]


def test_the_start_up_of_a_first_step_does_not_count_as_the_length_of_a_step() -> None:
    run = Run(lambda case, number: 40.0 if case is INLINE and number == 1 else 10.0)
    assert len(run.go(make_plan(budget_s=100.0))) == 6


def test_a_case_that_fails_is_left_out_and_the_others_are_measured() -> None:
    def seconds(case: StepCase, _number: int) -> float:
        if case is INLINE:
            raise MemoryError("out of memory\nwith details")
        return 1.0

    assert Run(seconds).go(make_plan()) == [
        ("off", 1),
        ("off", 2),
        f"{INLINE.name}, step 1: MemoryError: out of memory",
        (SEPARATE.name, 1),
        (SEPARATE.name, 2),
    ]


def test_with_several_ranks_a_failure_ends_the_run() -> None:
    def seconds(_case: StepCase, _number: int) -> float:
        raise MemoryError("out of memory")

    with pytest.raises(MemoryError):
        Run(seconds).go(make_plan(ranks=2))


def test_the_first_rank_decides_for_all() -> None:
    assert Run(lambda *_: 1.0).go(make_plan(), agree=lambda _mine: False) == [
        "stopped before off, step 1: the budget of 100 s is spent"
    ]
