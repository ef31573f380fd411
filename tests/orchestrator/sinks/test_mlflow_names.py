from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model import Anomaly, AttemptState, PointState, Verdict
from orchestrator.sinks.base import AttemptRecord, PointRecord, SweepRecord, metric_rows
from orchestrator.sinks.mlflow_names import (
    attempt_status,
    metric_key,
    metric_value,
    point_status,
    point_tags,
    summary_value,
    sweep_tags,
)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("actor/grad_norm", "actor/grad_norm"),
        ("val-core/mean@8", "val-core/mean_at_8"),
        ("a=b,c%[d]#", "a_b_c__d__"),
        ("/lead//double/", "lead/double"),
        ("a/../b/./c", "a/__/b/_/c"),
        ("", "_"),
        ("größe", "größe"),
    ],
)
def test_metric_keys(name: str, key: str) -> None:
    assert metric_key(name) == key


@given(st.text())
def test_any_name_becomes_a_key_that_stays_as_it_is(name: str) -> None:
    key = metric_key(name)
    assert re.fullmatch(r"[\w\-.:/ ]{1,250}", key)
    assert not {"", ".", ".."} & set(key.split("/"))
    assert metric_key(key) == key


def test_summary_figures_are_short_and_counts_exact() -> None:
    assert summary_value(0.722118) == 0.7221
    assert summary_value(6_129_414.0) == 6_129_414.0
    assert math.isnan(summary_value(math.nan))
    assert math.isnan(metric_value(-math.inf))


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (PointState.SUCCEEDED, "FINISHED"),
        (PointState.FAILED, "FAILED"),
        (PointState.CANCELLED, "KILLED"),
        (PointState.PRUNED, "KILLED"),
        (PointState.ACTIVE, "RUNNING"),
        (PointState.READY, "RUNNING"),
    ],
)
def test_status_of_a_point(state: PointState, status: str) -> None:
    assert point_status(PointRecord("s", "p", "n", state, attempts=(AttemptRecord(1, AttemptState.RUNNING),))) == status


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_judged_attempt_is_never_shown_as_running(verdict: Verdict) -> None:
    status = attempt_status(AttemptRecord(1, AttemptState.JUDGED, verdict=verdict))
    assert (status == "FINISHED") == (verdict is Verdict.COMPLETED)
    assert status != "RUNNING"


def test_tags_are_cut_before_a_server_refuses_them() -> None:
    record = PointRecord(
        "s",
        "p",
        "n",
        PointState.FAILED,
        anomalies=(Anomaly("c", "x" * 9_000),),
        attempts=(AttemptRecord(1, AttemptState.JUDGED),),
    )
    assert len(point_tags(record, "run")["mlflow.note.content"]) == 5_000
    assert sweep_tags(SweepRecord("s", 1, "asked"))["mlflow.note.content"] == "asked"


def test_metric_times_follow_the_measured_steps() -> None:
    metrics = {
        2: {"timing_s/step": 3.0},
        1: {"timing_s/step": 2.5, "a": 1.0},
        3: {"a": 2.0},
        4: {"timing_s/step": math.nan},
    }
    rows = metric_rows(metrics, 1_000)
    assert [(row.step, row.key, row.timestamp_ms) for row in rows] == [
        (1, "a", 3_500),
        (1, "timing_s/step", 3_500),
        (2, "timing_s/step", 6_500),
        (3, "a", 6_501),
        (4, "timing_s/step", 6_502),
    ]


@pytest.mark.parametrize(("trials", "tag"), [((), None), ((3,), "3"), ((3, 7), "3, 7")])
def test_a_point_of_a_search_carries_the_numbers_of_its_trials(trials: tuple[int, ...], tag: str | None) -> None:
    point = PointRecord(
        "s", "p", "p", PointState.ACTIVE, trials=trials, attempts=(AttemptRecord(1, AttemptState.RUNNING),)
    )
    assert point_tags(point, "run").get("trial") == tag
