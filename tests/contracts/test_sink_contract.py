"""What every sink promises: the same record written again, by the same process or by the next one, changes nothing.

A sink under test brings `reopen`, which gives a new instance on the same place as after a crash, and `content`, which
reads back everything that is kept there.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
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
    Sink,
    SinkError,
    SweepEnd,
    SweepRecord,
)
from orchestrator.sinks.mlflow import open_mlflow

START = 1_771_754_400_000
TABLES = ("experiments", "experiment_tags", "runs", "metrics", "latest_metrics", "params", "tags")


@dataclass(frozen=True)
class Place:
    reopen: Callable[[], Sink]
    content: Callable[[], dict[str, Any]]


def mlflow_place(root: Path) -> Place:
    def content() -> dict[str, Any]:
        with closing(sqlite3.connect(root / "mlflow.db")) as connection:
            kept: dict[str, Any] = {
                table: sorted(map(repr, connection.execute(f"SELECT * FROM {table}"))) for table in TABLES
            }
        kept["files"] = {str(f): f.read_bytes() for f in sorted((root / "mlartifacts").rglob("*")) if f.is_file()}
        return kept

    return Place(lambda: open_mlflow(RootPaths(root), {}), content)


@pytest.fixture(params=[mlflow_place], ids=["mlflow"], scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One place for all tests of a sink: opening MLflow's database for the first time takes seconds."""
    return request.param(tmp_path_factory.mktemp("sink"))  # type: ignore[no-any-return]


@pytest.fixture
def sweep(request: pytest.FixtureRequest) -> SweepRecord:
    """Every test has a sweep of its own."""
    name = request.node.name.split("[")[0].replace("_", "-")
    return SweepRecord(name, START, "Which factor?", ("factor",), {"commit": "abc"}, "# Note\n\n| a |\n| --- |")


@pytest.fixture
def point(sweep: SweepRecord, tmp_path: Path) -> PointRecord:
    """A point that took two attempts and is settled."""
    config = tmp_path / "config.yaml"
    config.write_text("factor: 64\n")
    first = AttemptRecord(
        1, AttemptState.JUDGED, "h100", "slurm", "11", Verdict.GPU_OOM, "out of memory", 1, START, START + 5
    )
    second = AttemptRecord(
        2, AttemptState.JUDGED, "h200", "slurm", "12", Verdict.COMPLETED, None, 0, START + 10, START + 99
    )
    return PointRecord(
        sweep=sweep.name,
        id="0123456789",
        name="infl-f64",
        state=PointState.SUCCEEDED,
        parameters={"factor": 64},
        fixed={"hessian_mode": "inverse"},
        verdict=Verdict.COMPLETED,
        anomalies=(Anomaly("oom_recovered", "h100 was too small"),),
        attempts=(first, second),
        started_at_ms=START,
        ended_at_ms=START + 99,
        metrics=[MetricRow(step, "actor/grad_norm", 0.05 * step, START + 10 + step) for step in (1, 2)],
        npz=[MetricRow(step, "npz/std", 0.2, START + 10 + step) for step in (1, 2)],
        summary={"summary/score_std": 0.2},
        artifacts=(Artifact(config), Artifact(config, "inputs")),
    )


def write_all(sink: Sink, sweep: SweepRecord, point: PointRecord, report: Path) -> None:
    sink.write_sweep(sweep)
    sink.write_point(point)
    sink.finish_sweep(end_of(sweep, report))


def end_of(sweep: SweepRecord, report: Path, **more: Any) -> SweepEnd:
    figures = {"sweep/points": 1.0, "sweep/gpu_hours": 1.5}
    fields = {
        "note_markdown": "# It worked",
        "summary": figures,
        "artifacts": (Artifact(report), Artifact(report, "plots")),
    }
    return SweepEnd(sweep.name, PointState.SUCCEEDED, START + 100, **{**fields, **more})


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.md"
    path.write_text("# Report\n")
    return path


def test_writing_everything_twice_changes_nothing(
    place: Place, sweep: SweepRecord, point: PointRecord, report: Path
) -> None:
    sink = place.reopen()
    write_all(sink, sweep, point, report)
    before = place.content()
    write_all(sink, sweep, point, report)
    assert place.content() == before


def test_the_next_process_changes_nothing_either(
    place: Place, sweep: SweepRecord, point: PointRecord, report: Path
) -> None:
    write_all(place.reopen(), sweep, point, report)
    before = place.content()
    write_all(place.reopen(), sweep, point, report)
    assert place.content() == before


def test_rows_that_came_with_an_earlier_write_are_kept_once(
    place: Place, sweep: SweepRecord, point: PointRecord
) -> None:
    """Live, step by step, then judged: as many rows as there are figures."""
    sink = place.reopen()
    sink.write_sweep(sweep)
    before = len(place.content()["metrics"])
    judged = point.attempts[1]
    running = dataclasses.replace(judged, state=AttemptState.RUNNING, verdict=None, ended_at_ms=None)
    live = dataclasses.replace(point, state=PointState.ACTIVE, verdict=None, attempts=(running,), ended_at_ms=None)
    for steps in range(3):
        sink.write_point(dataclasses.replace(live, metrics=point.metrics[:steps], npz=point.npz[: steps // 2]))
    sink.write_point(dataclasses.replace(point, attempts=(judged,)))
    rows = len(point.metrics) + len(point.npz) + len(point.summary)
    assert len(place.content()["metrics"]) - before == rows


def test_a_point_that_never_started_leaves_nothing(place: Place, sweep: SweepRecord, point: PointRecord) -> None:
    sink = place.reopen()
    sink.write_sweep(sweep)
    before = place.content()
    sink.write_point(dataclasses.replace(point, state=PointState.READY, attempts=()))
    queued = AttemptRecord(1, AttemptState.QUEUED)
    sink.write_point(dataclasses.replace(point, state=PointState.ACTIVE, attempts=(queued,)))
    assert place.content() == before


def test_a_point_of_a_sweep_that_was_not_opened_is_refused(place: Place, point: PointRecord) -> None:
    with pytest.raises(SinkError, match="not open"):
        place.reopen().write_point(point)


def test_a_missing_artifact_is_left_out(place: Place, sweep: SweepRecord, point: PointRecord, tmp_path: Path) -> None:
    missing = Artifact(tmp_path / "gone.log")
    write_all(place.reopen(), sweep, dataclasses.replace(point, artifacts=(missing,)), missing.path)
    assert not any("gone.log" in file for file in place.content()["files"])


def test_a_newer_end_replaces_note_figures_and_files(
    place: Place, sweep: SweepRecord, point: PointRecord, report: Path
) -> None:
    """Drawn again after a pattern changed: the same moment, other words and figures."""
    sink = place.reopen()
    write_all(sink, sweep, point, report)
    report.write_text("# Drawn again\n")
    again = end_of(sweep, report, note_markdown="# Judged again", summary={"sweep/points": 1.0, "sweep/gpu_hours": 0.5})
    sink.finish_sweep(again)
    before = place.content()
    place.reopen().write_sweep(sweep)
    sink.finish_sweep(again)
    after = place.content()
    assert after == before
    assert any("# Judged again" in tag for tag in after["tags"])
    assert not any("# It worked" in tag and sweep.name in tag for tag in after["tags"])
    assert sum(text == b"# Drawn again\n" for text in after["files"].values()) >= 2


def test_sweeps_of_one_name_stay_apart(place: Place, sweep: SweepRecord, point: PointRecord, report: Path) -> None:
    first, second = place.reopen(), place.reopen()
    write_all(first, sweep, point, report)
    runs = len(place.content()["runs"])
    write_all(second, dataclasses.replace(sweep, created_at_ms=START + 5_000), point, report)
    assert len(place.content()["runs"]) > runs
