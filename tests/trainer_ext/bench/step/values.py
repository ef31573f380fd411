"""Values of the step benchmark, for its tests."""

from __future__ import annotations

from typing import Any

from trainer_ext.bench.report import Environment
from trainer_ext.bench.step.cases import CASES, StepCase
from trainer_ext.bench.step.plan import StepPlan
from trainer_ext.bench.step.report import StepReport, StepRow

OFF, INLINE = CASES[0], CASES[1]
SEPARATE = next(case for case in CASES if INLINE.same_scores_as(case))


def make_plan(**changes: Any) -> StepPlan:
    values: dict[str, Any] = {
        "through": "worker",
        "device": "cpu",
        "model": "tiny",
        "layers": 2,
        "profile": "h200x1",
        "overrides": (),
        "cases": (OFF, INLINE, SEPARATE),
        "steps": 2,
        "ranks": 1,
        "prompts": 2,
        "per_prompt": 4,
        "prompt_tokens": 5,
        "response": (3, 9),
        "budget_s": 100.0,
        "seed": 0,
    }
    return StepPlan(**{**values, **changes})


def make_row(case: StepCase, step: int = 2, **changes: Any) -> StepRow:
    seconds = {"update_actor": 10.0, "forward_2": 3.0, "loss_backward": 6.0}
    trace = {} if case.settings is None else {"influence": 0.5, "hessian_solve": 0.25, "pop_rows": 0.5}
    values: dict[str, Any] = {
        "case": case.name,
        "settings": case.settings,
        "step": step,
        "seconds": {**seconds, **trace},
        "memory_gib": {"device": 90.5, "process": 4.25},
        "tokens": 1000,
    }
    return StepRow(**{**values, **changes})


def make_report(*rows: StepRow, **changes: Any) -> StepReport:
    plan = make_plan()
    values: dict[str, Any] = {
        "environment": Environment(date="2026-01-02", commit="abc", device="1 x NVIDIA H200", torch="2.11.0"),
        "setup": plan.setup,
        "rows": rows,
        "expected": tuple(case.name for case in plan.cases),
    }
    return StepReport(**{**values, **changes})
