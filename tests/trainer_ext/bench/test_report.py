from __future__ import annotations

import math

import pytest

from trainer_ext.bench.report import CaseReport, Yardstick, worst
from trainer_ext.bench.work import Work


def case(*yardsticks: Yardstick) -> CaseReport:
    return CaseReport("f32", 32, None, 1.0, Work(), yardsticks=yardsticks)


def test_the_plain_time_is_one_module_of_each_shape_times_its_count() -> None:
    report = case(
        Yardstick("q+o", 48, 48, 56, plain_seconds=0.5, plain_peak_gib=1.0),
        Yardstick("down", 280, 48, 28, plain_seconds=10.0, plain_peak_gib=9.0),
    )
    assert report.plain_seconds == pytest.approx(56 * 0.5 + 28 * 10)
    assert report.plain_peak_gib == 9.0


def test_a_shape_that_was_not_measured_leaves_no_plain_time() -> None:
    assert case(Yardstick("q+o", 48, 48, 56, plain_seconds=0.5), Yardstick("down", 280, 48, 28)).plain_seconds is None
    assert case().plain_seconds is None
    assert case().plain_peak_gib is None


def test_the_error_of_a_case_is_its_worst_modules() -> None:
    report = case(
        Yardstick("q+o", 48, 48, 56, errors={"fast": 3e-4, "fp32": 1e-6}),
        Yardstick("down", 280, 48, 28, errors={"fast": 5e-4}),
    )
    assert (report.error("fast"), report.error("fp32"), report.error("plain")) == (5e-4, 1e-6, None)


def test_nan_is_worse_than_any_number() -> None:
    assert worst([1.0, 3.0, 2.0]) == 3.0
    value = worst([1.0, math.nan, math.inf])
    assert value is not None
    assert math.isnan(value)
    assert worst([]) is None


def test_a_failure_is_said_once() -> None:
    assert case().failing(["a", "b"]).failing(["b", "c"]).failures == ("a", "b", "c")
