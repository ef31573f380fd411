"""From a sweep that ran on the fake cluster to what a sink is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.backends.base import JobRequest
from orchestrator.backends.fake import Play, always
from orchestrator.backends.fake_files import succeed
from orchestrator.ledger import View
from orchestrator.model import PointState
from orchestrator.paths import AttemptPaths
from orchestrator.recording import Recorder, report_files, sweep_end
from orchestrator.sinks.base import PointRecord, SweepEnd, SweepRecord
from tests.orchestrator.driving import Rehearsal


class Kept:
    """Keeps what it was given last, by point."""

    def __init__(self) -> None:
        self.points: dict[str, PointRecord] = {}

    def write_sweep(self, sweep: SweepRecord) -> str | None: ...

    def write_point(self, point: PointRecord) -> None:
        self.points[point.name] = point

    def finish_sweep(self, end: SweepEnd) -> None: ...


def train(request: JobRequest, started_at: float, ended_at: float) -> None:
    """Three steps; the second measured nothing of the solver."""
    succeed(request, started_at, ended_at)
    rows = [
        {"timing_s/step": 4.0, "timing_s/influence_hessian_solve": 1.0, "actor/grad_norm": 0.5},
        {"timing_s/step": 2.0, "actor/grad_norm": None},
        {"timing_s/step": 3.0, "timing_s/influence_hessian_solve": 3.0, "actor/grad_norm": 0.7},
    ]
    lines = (json.dumps({"step": step, "data": data}) for step, data in enumerate(rows, 1))
    AttemptPaths(request.attempt_dir).metrics.write_text("\n".join(lines) + "\n")


def recorded(rehearsal: Rehearsal, gpus: int) -> tuple[View, dict[str, PointRecord]]:
    view, kept = rehearsal.drive(), Kept()
    recorder = Recorder(kept, rehearsal.store, rehearsal.paths, gpus)
    for point in view.points:
        recorder.log(point, view.history(point))
    return view, kept.points


def test_a_points_figures_are_medians_over_its_steps_and_what_its_attempt_took(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play(on_end=train)), points=1)
    _, points = recorded(rehearsal, gpus=8)
    summary = points["point-0"].summary
    assert (summary["summary/step_s"], summary["summary/hessian_solve_s"]) == (3.0, 2.0)
    assert summary["summary/grad_norm"] == pytest.approx(0.6), "a step without a number does not count"
    assert summary["summary/gpu_hours"] == pytest.approx(8 * summary["summary/minutes"] / 60)
    assert "summary/rows" not in summary


def test_the_end_of_a_sweep_counts_points_attempts_and_hours_and_brings_the_reports_files(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play()), points=2)
    view, _ = recorded(rehearsal, gpus=8)
    folder = rehearsal.paths.sweep("s")
    (folder / "plots").mkdir()
    for name in (
        "report.md",
        "report.html",
        "report-points.csv",
        ".lock",
        "plots/cost.png",
        "plots/cost.svg",
        "plots/x.tmp",
    ):
        (folder / name).write_text("## s\n\nAll well\n")
    row = rehearsal.store.sweep("s")
    end = sweep_end(rehearsal.paths, row, view, 8, True, row.created_at + 120)
    assert (end.status, end.summary["sweep/points"], end.summary["sweep/succeeded"]) == (PointState.SUCCEEDED, 2, 2)
    assert (end.summary["sweep/attempts"], end.summary["sweep/minutes"]) == (2, 2.0)
    assert end.summary["sweep/gpu_hours"] > 0
    assert "All well" in end.note_markdown
    files = [(artifact.folder, artifact.path.name) for artifact in end.artifacts]
    assert files == [
        ("", "report-points.csv"), ("", "report.html"), ("", "report.md"), ("plots", "cost.png"), ("plots", "cost.svg")
    ]  # fmt: skip


def test_a_sweep_without_a_report_ends_all_the_same(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play()), points=1)
    view = rehearsal.drive()
    end = sweep_end(rehearsal.paths, rehearsal.store.sweep("s"), view, 0, False, rehearsal.clock.now())
    assert (end.status, end.note_markdown, end.artifacts) == (PointState.FAILED, "", ())
    assert "sweep/gpu_hours" not in end.summary
    assert report_files(rehearsal.paths, "s") == []
