"""What the step benchmark found, as values."""

from __future__ import annotations

import json

from tests.trainer_ext.bench.step.values import INLINE, OFF, SEPARATE, make_plan, make_report, make_row
from trainer_ext.bench.history import plain
from trainer_ext.bench.step.report import report_mapping, slowest


def test_the_last_step_of_a_case_is_the_one_that_counts() -> None:
    first, last = make_row(OFF, 1), make_row(OFF, 2)
    assert make_report(first, last, make_row(INLINE)).steady("off") is last


def test_a_case_without_a_row_is_missing() -> None:
    report = make_report(make_row(OFF), make_row(INLINE, 1))
    assert report.missing() == (SEPARATE.name,)


def test_the_update_and_the_trace_make_the_total() -> None:
    assert make_row(OFF).total == 10.0
    assert make_row(INLINE).total == 10.5


def test_of_several_ranks_the_largest_value_counts_and_none_needs_to_have_all() -> None:
    assert slowest([{"a": 1.0, "node": 5.0}, {"a": 2.0}]) == {"a": 2.0, "node": 5.0}


def test_a_report_is_json_and_states_the_plan() -> None:
    mapping = json.loads(json.dumps(plain(report_mapping(make_report(make_row(INLINE))))))
    assert mapping["schema"] == 1
    assert mapping["setup"]["overrides"] == list(make_plan().all_overrides)
    assert mapping["rows"][0]["seconds"]["hessian_solve"] == 0.25
