"""The head of a report: short whatever the sweep's size."""

from __future__ import annotations

import dataclasses

from reports.report import render
from tests.reports.made import made_point, made_sweep


def test_an_axis_of_many_levels_names_the_first() -> None:
    drawn = render(made_sweep([made_point({"lr": 0.5**n}, {"step": 1}) for n in range(50)]), only={"header"})
    assert "`lr` {`1.0`, `0.5`, `0.25`, `0.125`, `0.0625`, `0.03125`, `0.015625`, `0.0078125` and 42 more}" in drawn


def test_a_few_levels_are_all_named() -> None:
    drawn = render(made_sweep([made_point({"factor": n}, {"step": 1}) for n in (64, 32)]), only={"header"})
    assert "`factor` {`64`, `32`}" in drawn


def test_minutes_of_a_gpu_are_no_zero() -> None:
    sweep = dataclasses.replace(
        made_sweep([made_point({}, name="only")]), created_at=0.0, gpu_hours=0.03, gpu_hours_limit=10
    )
    assert "0.030 of 10 GPU hours" in render(sweep, only={"header"})
