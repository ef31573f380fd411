"""Goes through a plan's steps: as far as the time reaches, and past a case that fails."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from trainer_ext.bench.step.cases import StepCase
from trainer_ext.bench.step.events import Event
from trainer_ext.bench.step.plan import StepPlan
from trainer_ext.bench.step.report import StepRow


def run_schedule(
    step: Callable[[StepCase, int], StepRow],
    plan: StepPlan,
    emit: Callable[[Event], None],
    *,
    seconds_gone: Callable[[], float],
    agree: Callable[[bool], bool],
) -> None:
    """Run all steps of the plan, in order.

    Args:
        step: runs a case's step of this number, from 1.
        emit: told what came of it.
        seconds_gone: since the start of the run, the start-up included.
        agree: the first rank's answer to a question, given this rank's own: all ranks must decide alike.

    Raises:
        Exception: what a step raises where there are several ranks: the others wait for this one, and only the process that
            started them can end that.
    """
    longest = 0.0
    failed: set[str] = set()
    for index, case in enumerate(plan.schedule):
        number = index % plan.steps + 1
        if case.name in failed:
            continue
        if not agree(seconds_gone() + longest < plan.budget_s):
            emit(
                Event(failure=f"stopped before {case.name}, step {number}: the budget of {plan.budget_s:g} s is spent")
            )
            return
        before = seconds_gone()
        try:
            row = step(case, number)
        except Exception as error:  # whatever it is, the other cases are worth their time
            if plan.ranks > 1:
                raise
            traceback.print_exc()
            text = str(error).strip().splitlines() or ["no message"]
            emit(Event(failure=f"{case.name}, step {number}: {type(error).__name__}: {text[0]}"))
            failed.add(case.name)
            continue
        if number > 1 or not longest:  # a first step starts kernels up, which the next one need not
            longest = max(longest, seconds_gone() - before)
        emit(Event(row=row))
