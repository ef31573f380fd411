"""A real MLflow on SQLite: what its readers find after the sink wrote."""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.model import Anomaly, AttemptState, PointState, Verdict
from orchestrator.paths import RootPaths
from orchestrator.sinks.base import (
    Artifact,
    AttemptRecord,
    MetricRow,
    PointRecord,
    SinkError,
    SweepEnd,
    SweepRecord,
    metric_rows,
)
from orchestrator.sinks.mlflow import MlflowSink, open_mlflow

START = 1_771_754_400_000


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> RootPaths:
    return RootPaths(tmp_path_factory.mktemp("with blank") / "root of it")


@pytest.fixture(scope="module")
def sink(paths: RootPaths) -> MlflowSink:
    return open_mlflow(paths, {})


@pytest.fixture(scope="module")
def reader(sink: MlflowSink, paths: RootPaths) -> Any:
    assert sink is not None  # has made the database
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{paths.mlflow_database}")


@pytest.fixture
def sweep(request: pytest.FixtureRequest, sink: MlflowSink) -> SweepRecord:
    """Opened, and named after the test."""
    tags = {"commit": "abc", "mlflow.source.name": "sweeps/factor.yaml"}
    record = SweepRecord(request.node.name, START, "Which factor?", ("factor",), tags, "| a |\n| --- |")
    sink.write_sweep(record)
    return record


def attempt(n: int = 1, verdict: Verdict | None = Verdict.COMPLETED, pool: str = "h200", **more: Any) -> AttemptRecord:
    state = AttemptState.JUDGED if verdict else AttemptState.RUNNING
    start = START + 1_000 * n
    return AttemptRecord(
        n, state, pool, verdict=verdict, started_at_ms=start, ended_at_ms=start + 500 if verdict else None, **more
    )


def point_of(sweep: SweepRecord, *attempts: AttemptRecord, **more: Any) -> PointRecord:
    done = attempts[-1].verdict is Verdict.COMPLETED
    fields: dict[str, Any] = {
        "sweep": sweep.name,
        "id": "0123456789",
        "name": "infl-f64",
        "state": PointState.SUCCEEDED if done else PointState.ACTIVE,
        "verdict": attempts[-1].verdict,
        "parameters": {"factor": 64},
        "attempts": attempts,
    }
    return PointRecord(**{**fields, **more})


def series(values: Mapping[int, float], key: str = "actor/grad_norm", attempt_n: int = 1) -> list[MetricRow]:
    return metric_rows({step: {key: value} for step, value in values.items()}, START + 1_000 * attempt_n)


def children(reader: Any, parent: str, experiment: str) -> list[Any]:
    return list(reader.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent}'"))


def only_child(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> Any:
    runs = sink.locate(sweep.name)
    assert runs is not None
    [child] = children(reader, runs.run_id, runs.experiment_id)
    return child


def test_opening_makes_a_wal_database_under_the_root(sink: MlflowSink, paths: RootPaths) -> None:
    assert sink is not None
    with closing(sqlite3.connect(paths.mlflow_database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_sweep_is_a_parent_run_with_its_note_and_artifacts_under_the_root(
    sink: MlflowSink, reader: Any, sweep: SweepRecord, paths: RootPaths, tmp_path: Path
) -> None:
    report = tmp_path / "report.md"
    report.write_text("# Report")
    sink.finish_sweep(SweepEnd(sweep.name, PointState.FAILED, START + 9, artifacts=(Artifact(report),)))
    runs = sink.locate(sweep.name)
    assert runs is not None
    run = reader.get_run(runs.run_id)
    assert (run.info.run_name, run.info.status) == (sweep.name, "FAILED")
    assert (run.info.start_time, run.info.end_time) == (START, START + 9)
    assert run.data.tags["mlflow.note.content"] == sweep.note_markdown
    assert run.data.tags["commit"] == "abc"
    assert (paths.mlflow_artifacts / sweep.name / runs.run_id / "artifacts" / "report.md").read_text() == "# Report"


def test_a_finished_sweep_sums_its_points_up_and_names_the_extremes(
    sink: MlflowSink, reader: Any, sweep: SweepRecord
) -> None:
    for factor, seconds in ((64, 30.0), (128, 10.0), (512, 2.0)):
        figures = {"summary/step_s": seconds}
        sink.write_point(point_of(sweep, attempt(), id=str(factor), name=f"infl-f{factor}", summary=figures))
    sink.finish_sweep(SweepEnd(sweep.name, PointState.SUCCEEDED, START + 9, "# All well", {"sweep/points": 3.0}))
    runs = sink.locate(sweep.name)
    assert runs is not None
    run = reader.get_run(runs.run_id)
    least, middle, most = (run.data.metrics[f"sweep/step_s_{word}"] for word in ("min", "median", "max"))
    assert (least, middle, most, run.data.metrics["sweep/points"]) == (2.0, 10.0, 30.0, 3.0)
    assert (run.data.tags["min.step_s"], run.data.tags["max.step_s"]) == ("infl-f512", "infl-f64")
    assert (run.data.tags["mlflow.note.content"], run.data.tags["state"]) == ("# All well", "succeeded")


def test_a_figure_that_is_another_one_now_is_the_one_that_is_shown(
    sink: MlflowSink, reader: Any, sweep: SweepRecord
) -> None:
    """Also a smaller one of the same moment, of which MLflow by itself would keep the larger."""
    runs = sink.locate(sweep.name)
    assert runs is not None
    for hours in (5.0, 3.0, 4.0, 4.0):
        sink.finish_sweep(SweepEnd(sweep.name, PointState.FAILED, START + 9, summary={"sweep/gpu_hours": hours}))
        assert reader.get_run(runs.run_id).data.metrics == {"sweep/gpu_hours": hours}
    assert len(reader.get_metric_history(runs.run_id, "sweep/gpu_hours")) == 3


def test_the_view_has_the_axes_at_once_and_the_figures_at_the_end(
    sink: MlflowSink, reader: Any, sweep: SweepRecord
) -> None:
    def drawn() -> tuple[list[str], list[str]]:
        runs = sink.locate(sweep.name)
        assert runs is not None
        value = reader.get_experiment(runs.experiment_id).tags[f"mlflow.sharedViewState.{runs.view}"]
        chart = json.loads(json.loads(value)["state"])["compareRunCharts"][0]
        return chart["selectedParams"], chart["selectedMetrics"]

    assert drawn() == (["factor"], [])
    sink.write_point(point_of(sweep, attempt(), summary={"summary/score_std": 0.2}))
    sink.finish_sweep(SweepEnd(sweep.name, PointState.SUCCEEDED, START + 9))
    assert drawn() == (["factor"], ["summary/score_std"])


def test_replicates_of_a_setting_share_a_tag_to_group_by(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    for seed in (0, 1):
        parameters = {"factor": 64, "seed": seed}
        sink.write_point(point_of(sweep, attempt(), id=str(seed), parameters=parameters, replicate=frozenset({"seed"})))
    runs = sink.locate(sweep.name)
    assert runs is not None
    found = reader.search_runs([runs.experiment_id], "tags.settings = 'factor=64'")
    assert sorted(run.data.params["seed"] for run in found) == ["0", "1"]


def test_a_resumed_sweep_runs_again_until_it_is_finished(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    sink.finish_sweep(SweepEnd(sweep.name, PointState.CANCELLED, START + 9))
    run_id = sink.write_sweep(sweep)
    assert reader.get_run(run_id).info.status == "RUNNING"
    sink.finish_sweep(SweepEnd(sweep.name, PointState.SUCCEEDED, START + 20))
    assert (reader.get_run(run_id).info.status, reader.get_run(run_id).info.end_time) == ("FINISHED", START + 20)


def test_a_point_is_a_child_with_parameters_tags_and_times(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    anomalies = (Anomaly("nan_scores", "3 NaN in step 1"), Anomaly("log_truncated", ""))
    sink.write_point(
        point_of(
            sweep,
            attempt(exit_code=1, backend="slurm", job="4711", reason="both steps are there"),
            anomalies=anomalies,
            fixed={"lr": 1e-6, "loo": True, "bonus": None},
        )
    )
    child = only_child(sink, reader, sweep)
    assert child.info.run_name == "infl-f64"
    assert child.info.status == "FINISHED"
    assert (child.info.start_time, child.info.end_time) == (START + 1_000, START + 1_500)
    assert child.data.params == {"factor": "64", "lr": "1e-06", "loo": "true", "bonus": "null"}
    tags = child.data.tags
    assert tags["orchestrator.sweep"] == sweep.name
    assert tags["orchestrator.kind"] == "point"
    assert tags["orchestrator.point_id"] == "0123456789"
    assert (tags["state"], tags["verdict"]) == ("succeeded", "completed")
    assert tags["anomalies"] == "log_truncated,nan_scores"
    assert (tags["anomaly.nan_scores"], tags["anomaly.log_truncated"]) == ("true", "true")
    assert (tags["backend"], tags["job"], tags["settings"]) == ("slurm", "4711", "factor=64")
    note = tags["mlflow.note.content"].splitlines()
    assert "| 1 | h200 | completed, exit code 1: both steps are there |" in note
    assert note[-2:] == ["- `nan_scores`: 3 NaN in step 1", "- `log_truncated`: log\\_truncated"]
    assert tags["mlflow.source.name"] == "sweeps/factor.yaml"


def test_an_anomaly_that_is_taken_back_loses_its_tag(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    flagged = point_of(sweep, attempt(), anomalies=(Anomaly("missing_npz", "1 of 2"), Anomaly("hmm", "x")))
    sink.write_point(flagged)
    sink.write_point(dataclasses.replace(flagged, anomalies=flagged.anomalies[1:]))
    tags = only_child(sink, reader, sweep).data.tags
    assert "anomaly.missing_npz" not in tags
    assert tags["anomalies"] == "hmm"


def test_the_last_anomaly_taken_back_leaves_no_list(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    flagged = point_of(sweep, attempt(), anomalies=(Anomaly("missing_npz", "1 of 2"),))
    sink.write_point(flagged)
    sink.write_point(dataclasses.replace(flagged, anomalies=()))
    assert not [tag for tag in only_child(sink, reader, sweep).data.tags if "anomal" in tag]


def test_a_running_point_is_written_as_it_goes(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    running = attempt(verdict=None)
    sink.write_point(point_of(sweep, running, metrics=series({1: 0.5})))
    assert only_child(sink, reader, sweep).info.status == "RUNNING"
    sink.write_point(point_of(sweep, running, metrics=series({1: 0.5, 2: 0.6, 3: 0.7})))
    history = reader.get_metric_history(only_child(sink, reader, sweep).info.run_id, "actor/grad_norm")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.6), (3, 0.7)]


def test_a_step_that_a_requeued_job_repeats_keeps_its_first_value(
    sink: MlflowSink, reader: Any, sweep: SweepRecord
) -> None:
    sink.write_point(point_of(sweep, attempt(verdict=None), metrics=series({1: 0.5, 2: 0.6})))
    sink.write_point(point_of(sweep, attempt(), metrics=series({1: 0.51, 2: 0.61, 3: 0.7})))
    history = reader.get_metric_history(only_child(sink, reader, sweep).info.run_id, "actor/grad_norm")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.6), (3, 0.7)]


def test_rows_sent_before_a_crash_are_not_doubled_when_the_true_start_is_learnt(
    sink: MlflowSink, reader: Any, sweep: SweepRecord
) -> None:
    """The process died after sending and before remembering; meanwhile the outcome told another start."""
    sink.write_point(point_of(sweep, attempt(verdict=None), metrics=series({1: 0.5, 2: 0.6})))
    run_id = only_child(sink, reader, sweep).info.run_id
    reader.delete_tag(run_id, "orchestrator.logged.metrics")
    moved = dataclasses.replace(attempt(), started_at_ms=START + 700)
    rows = [dataclasses.replace(row, timestamp_ms=row.timestamp_ms - 300) for row in series({1: 0.5, 2: 0.6})]
    sink.write_point(point_of(sweep, moved, metrics=rows))
    assert len(reader.get_metric_history(run_id, "actor/grad_norm")) == 2


def test_attempts_do_not_mix_their_series(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    failed = attempt(1, Verdict.GPU_OOM, "h100", reason="CUDA out of memory")
    sink.write_point(point_of(sweep, attempt(1, None, "h100"), metrics=series({1: 9.0})))
    sink.write_point(point_of(sweep, failed, metrics=series({1: 9.0}), summary={"summary/score_std": 9.0}))
    sink.write_point(point_of(sweep, failed, attempt(2, None), metrics=series({1: 1.0}, attempt_n=2)))
    sink.write_point(point_of(sweep, failed, attempt(2), metrics=series({1: 1.0, 2: 2.0}, attempt_n=2)))

    point = only_child(sink, reader, sweep)
    assert (point.info.status, point.data.metrics) == ("FINISHED", {"actor/grad_norm": 2.0})
    assert point.data.tags["attempts"] == "2"
    assert "| 1 | h100 | gpu\\_oom: CUDA out of memory |" in point.data.tags["mlflow.note.content"]
    [before] = children(reader, point.info.run_id, point.info.experiment_id)
    assert (before.info.run_name, before.info.status) == ("infl-f64 (attempt 1)", "FAILED")
    assert before.info.end_time == START + 1_500
    assert before.data.metrics == {"actor/grad_norm": 9.0, "summary/score_std": 9.0}
    assert before.data.tags["orchestrator.kind"] == "attempt"
    assert before.data.tags["state"] == "judged"


def test_all_earlier_attempts_hang_below_the_latest(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    tries = [attempt(1, Verdict.PREEMPTED), attempt(2, Verdict.HANG), attempt(3)]
    for number in (1, 2, 3):
        sink.write_point(point_of(sweep, *tries[:number]))
    point = only_child(sink, reader, sweep)
    below = children(reader, point.info.run_id, point.info.experiment_id)
    assert {run.data.tags["orchestrator.attempt"]: run.info.status for run in below} == {"1": "KILLED", "2": "FAILED"}


def test_a_crash_between_creating_and_retiring_is_repaired(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    tries = (attempt(1, Verdict.HANG), attempt(2))
    sink.write_point(point_of(sweep, tries[0]))
    old = only_child(sink, reader, sweep).info.run_id
    sink.write_point(point_of(sweep, *tries))
    runs = sink.locate(sweep.name)
    assert runs is not None
    reader.set_tag(old, "mlflow.parentRunId", runs.run_id)
    reader.set_tag(old, "orchestrator.kind", "point")
    sink.write_point(point_of(sweep, *tries))
    assert only_child(sink, reader, sweep).data.tags["orchestrator.attempt"] == "2"


def test_values_that_are_no_numbers_are_kept_as_such(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    rows = series({1: math.nan, 2: math.inf, 3: -math.inf, 4: 0.5})
    record = point_of(sweep, attempt(), metrics=rows)
    sink.write_point(record)
    history = reader.get_metric_history(only_child(sink, reader, sweep).info.run_id, "actor/grad_norm")
    values = {metric.step: metric.value for metric in history}
    assert all(math.isnan(values[step]) for step in (1, 2, 3))
    assert values[4] == 0.5


def test_long_series_arrive_whole(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    sink.write_point(point_of(sweep, attempt(), metrics=series({step: float(step) for step in range(1, 1_502)})))
    child = only_child(sink, reader, sweep)
    assert len(reader.get_metric_history(child.info.run_id, "actor/grad_norm")) == 1_501
    assert child.data.tags["orchestrator.logged.metrics"] == "1501"


def test_metric_names_that_mlflow_refuses_are_mapped(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    sink.write_point(point_of(sweep, attempt(), metrics=series({1: 1.0}, "val-core/math/acc/mean@8")))
    assert only_child(sink, reader, sweep).data.metrics == {"val-core/math/acc/mean_at_8": 1.0}


def test_summary_stands_at_step_zero_once_the_attempt_is_judged(
    sink: MlflowSink, reader: Any, sweep: SweepRecord, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("a: 1")
    summary = {"summary/host_peak_gib": 7.123456, "summary/valid": 6_129_414.0}
    running = point_of(sweep, attempt(verdict=None), summary=summary, artifacts=(Artifact(config, "attempt"),))
    sink.write_point(running)
    assert only_child(sink, reader, sweep).data.metrics == {}
    sink.write_point(dataclasses.replace(running, state=PointState.SUCCEEDED, attempts=(attempt(),)))
    child = only_child(sink, reader, sweep)
    assert child.data.metrics == {"summary/host_peak_gib": 7.123, "summary/valid": 6_129_414.0}
    [row] = reader.get_metric_history(child.info.run_id, "summary/valid")
    assert row.step == 0
    assert [file.path for file in reader.list_artifacts(child.info.run_id, "attempt")] == ["attempt/config.yaml"]


def test_summary_and_parameters_are_written_once(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    """MLflow refuses another parameter value, and would keep both values of a metric."""
    for value in (1, 2):
        figures = {"summary/score_std": float(value)}
        sink.write_point(point_of(sweep, attempt(), parameters={"factor": value}, summary=figures))
    child = only_child(sink, reader, sweep)
    assert child.data.params == {"factor": "1"}
    assert [row.value for row in reader.get_metric_history(child.info.run_id, "summary/score_std")] == [1.0]


def test_locating_gives_points_in_order_of_their_start(sink: MlflowSink, sweep: SweepRecord) -> None:
    assert sink.locate("no such sweep") is None
    sink.write_point(point_of(sweep, attempt(2), id="late"))
    sink.write_point(point_of(sweep, attempt(1), id="early"))
    runs = sink.locate(sweep.name)
    assert runs is not None
    assert len(runs.point_run_ids) == 2
    again = sink.locate(sweep.name)
    assert again == runs


def test_a_deleted_experiment_is_said_with_the_way_back(sink: MlflowSink, reader: Any, sweep: SweepRecord) -> None:
    runs = sink.locate(sweep.name)
    assert runs is not None
    reader.delete_experiment(runs.experiment_id)
    with pytest.raises(SinkError, match=f"restore --experiment-id {runs.experiment_id}"):
        sink.write_sweep(sweep)


def test_a_database_of_an_older_mlflow_is_not_migrated(tmp_path: Path, sink: MlflowSink, paths: RootPaths) -> None:
    assert sink is not None
    other = RootPaths(tmp_path)
    with (
        closing(sqlite3.connect(paths.mlflow_database)) as source,
        closing(sqlite3.connect(other.mlflow_database)) as copy,
    ):
        source.backup(copy)
        copy.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        copy.commit()
    with pytest.raises(SinkError, match=r"older MLflow; copy it, then run: mlflow db upgrade sqlite:///"):
        open_mlflow(other, {})


def test_an_address_that_cannot_be_opened_says_so_at_once(paths: RootPaths) -> None:
    with pytest.raises(SinkError, match="cannot be opened"):
        open_mlflow(paths, {"MLFLOW_TRACKING_URI": "nonsense://nowhere"})


def test_settings_of_the_user_win(paths: RootPaths) -> None:
    environ = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5"}
    open_mlflow(paths, environ)
    assert environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "5"
    assert environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
