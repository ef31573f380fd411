"""The cases of the step benchmark as the steps of one whole verl job."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.trainer_ext.bench.step.values import INLINE, OFF, SEPARATE, make_plan
from trainer_ext.bench.__main__ import main
from trainer_ext.bench.step import job as jobs
from trainer_ext.bench.step.events import Event
from trainer_ext.bench.step.plan import compose_job

PLAN = make_plan(through="job")
DATA = {
    "timing_s/update_actor": 9.0,
    "timing_s/influence": 2.0,
    "timing_s/influence_pop_rows": 1.5,
    "timing_s/influence_forward_1": 0.0,
    "timing_s/old_log_prob": 3.0,
    "timing_s/unknown": 1.0,
    "perf/physical_memory_peak_gb": 80.0,
    "perf/host_memory_peak_gb": 20.0,
    "response_length/mean": 6.5,
    "influence_trace/scored_tokens": 52,
}


def prepared(folder: Path) -> dict[str, Any]:
    return jobs.prepared(PLAN, compose_job(PLAN, folder / "model"), folder)


def test_the_job_has_a_section_for_every_step_and_a_trainer_that_reads_them(tmp_path: Path) -> None:
    job = prepared(tmp_path)
    assert job["trainer"]["v1"]["trainer_mode"] == "influence_schedule"
    assert [section["enable"] for section in job["influence_schedule"]] == [False, False, True, True, True, True]
    assert [section["capture"] for section in job["influence_schedule"][2::2]] == ["inline", "separate"]
    modules = job["job"]["env"]["VERL_USE_EXTERNAL_MODULES"].split(",")
    assert modules == ["trainer_ext.verl_plugin", "trainer_ext.bench.step.scheduled_trainer"]


def test_nothing_is_left_to_an_orchestrator(tmp_path: Path) -> None:
    text = json.dumps(prepared(tmp_path))
    assert "{attempt_dir}" not in text
    assert "{root}" not in text
    assert "{python}" not in text


def test_prompts_are_enough_for_a_step_and_need_no_package(tmp_path: Path) -> None:
    job = prepared(tmp_path)
    rows = pq.read_table(job["data"]["train_files"]).to_pylist()
    assert len(rows) == job["data"]["train_batch_size"]
    assert {"data_source", "prompt", "reward_model", "extra_info"} < set(rows[0])
    assert len({row["prompt"][0]["content"] for row in rows}) == len(rows)


def test_a_logged_step_is_a_row_of_its_case() -> None:
    row = jobs.row_of(PLAN, 4, DATA)
    assert (row.case, row.step, row.settings) == (INLINE.name, 2, INLINE.settings)
    assert row.seconds == {"update_actor": 9.0, "old_log_prob": 3.0, "influence": 2.0, "pop_rows": 1.5}
    assert row.memory_gib == {"device": 80.0, "node": 20.0}
    assert (row.tokens, row.scored_tokens) == (52, 52)


def test_a_line_that_is_being_logged_is_not_read_yet(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    assert jobs.events_of(PLAN, metrics) == []
    metrics.write_text(json.dumps({"step": 1, "data": DATA}) + "\n" + '{"step": 2, "da')
    assert jobs.events_of(PLAN, metrics) == [Event(row=jobs.row_of(PLAN, 1, DATA))]


def test_memory_is_read_under_the_names_that_the_plugin_logs() -> None:
    import tests.trainer_ext.verl_plugin.conftest  # noqa: F401  # imports verl, its warnings aside
    from trainer_ext.verl_plugin import metrics

    names = {
        "device": metrics.PHYSICAL,
        "allocated": metrics.ALLOCATED,
        "process": metrics.RANK_HOST,
        "node": metrics.HOST,
    }
    assert names == jobs.MEMORY


@pytest.mark.verl
def test_one_job_goes_through_the_cases_without_generating(tmp_path: Path) -> None:
    words = ["job", "--device", "cpu", "--steps", "1", "--cases", INLINE.name, SEPARATE.name, "--budget", "400"]
    now = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    code = main([*words, "--json", str(tmp_path / "report.json"), "--work", str(tmp_path / "work")], now=lambda: now)
    report = json.loads((tmp_path / "report.json").read_text())
    assert code == 0, report["failures"]
    off, inline, separate = report["rows"]
    assert [row["case"] for row in report["rows"]] == [OFF.name, INLINE.name, SEPARATE.name]
    assert "influence" not in off["seconds"]
    assert "forward_1" not in inline["seconds"]
    assert separate["seconds"]["forward_1"] > 0
    for row in report["rows"]:
        assert row["seconds"]["gen"] < row["seconds"]["step"]
        assert 4 * 8 <= row["tokens"] <= 4 * 16, "as long as they were asked to be"
