"""The story of the reports that were written by hand, replayed through the whole control plane to its sentences.

f32 all_selected runs out of memory on the 80 GB pool and succeeds on the 141 GB pool; a job ends in Error though both steps
are done; torch claims 156.5 and 170.0 GiB on a card of 140.4; the influence timings are all zero.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from orchestrator.backends.base import JobRequest
from orchestrator.backends.fake import Play
from orchestrator.backends.fake_files import succeed, write_outcome
from orchestrator.explanation import explain_point
from orchestrator.identity import point_hash, point_id
from orchestrator.ledger import View
from orchestrator.model import Point, PointState, Verdict
from orchestrator.paths import AttemptPaths
from orchestrator.recording import Recorder
from orchestrator.reporting import write_report
from tests.orchestrator.driving import Rehearsal
from tests.triage.gold import CORPUS
from trainer_ext.records import AttemptSpec, MemorySample

GIB = 1024**3
OOM_LOG = CORPUS / "story-f32-all-selected-on-h100" / "train.log"


@dataclass(frozen=True)
class Job:
    """What a job of the story leaves behind on a card that suffices."""

    name: str
    factor: int
    solve_s: float
    torch_gib: float
    nvml_gib: float
    exit_code: int = 0
    oom_on: str | None = None

    def play(self, request: JobRequest, _earlier: int) -> Play:
        assert request.pool is not None
        return Play(on_end=self.out_of_memory if request.pool.name == self.oom_on else self.trained)

    def trained(self, request: JobRequest, started_at: float, ended_at: float) -> None:
        succeed(request, started_at, ended_at)
        paths = AttemptPaths(request.attempt_dir)
        rows = [(step, self._metrics()) for step in (1, 2)]
        paths.metrics.write_text("".join(json.dumps({"step": s, "data": data}) + "\n" for s, data in rows))
        console = [f"step:{s} - " + " - ".join(f"{k}:{v}" for k, v in data.items()) for s, data in rows]
        paths.console.write_text("\n".join([*console, *(["ray shutdown failed"] if self.exit_code else [])]) + "\n")
        card = request.pool.memory_mib * 1024**2 if request.pool and request.pool.memory_mib else 0
        sample = MemorySample(time=started_at, gpu_used=[int(self.nvml_gib * GIB)] * 8, gpu_total=[card] * 8)
        paths.memory.write_text(sample.to_json() + "\n")
        write_outcome(request, started_at, ended_at, exit_code=self.exit_code, steps=[1, 2])

    def out_of_memory(self, request: JobRequest, started_at: float, ended_at: float) -> None:
        AttemptPaths(request.attempt_dir).console.write_bytes(OOM_LOG.read_bytes())
        write_outcome(request, started_at, ended_at, exit_code=1)

    def _metrics(self) -> dict[str, float]:
        return {
            "influence_trace/rows_emitted": 96,
            "actor/grad_norm": 0.054,
            "timing_s/influence_hessian_solve": self.solve_s,
            "timing_s/influence_token_scoring": self.solve_s / 10,
            "timing_s/step": 0.4,
            "actor/perf/max_memory_allocated_gb": self.torch_gib,
        }

    def point(self, index: int) -> Point:
        expected = {"steps": 2, "npz": "influence/step_*.npz"}
        config: dict[str, Any] = {"factor": self.factor, "name": self.name}
        config["job"] = {"command": ["{python}", "job.py"], "expected": expected}
        full = point_hash(config)
        return Point(point_id(full), index, self.name, {"factor": self.factor}, {}, (), config, full)


JOBS = {
    job.name: job
    for job in (
        Job("infl-allsel-f32", 32, 961.0, torch_gib=139.0, nvml_gib=139.5, oom_on="h100"),
        Job("infl-excl-allsel-f64-0222", 64, 31.1, torch_gib=170.0, nvml_gib=131.0, exit_code=1, oom_on="h100"),
        Job("infl-excl-allsel-f128-0222", 128, 6.6, torch_gib=156.5, nvml_gib=120.0, oom_on="h100"),
        Job("infl-alltoken-timing-0221", 256, 0.0, torch_gib=60.0, nvml_gib=70.0),
    )
}


@dataclass(frozen=True)
class Told:
    rehearsal: Rehearsal
    view: View
    report: str

    def attempts(self, name: str) -> list[tuple[str | None, Verdict | None, list[str]]]:
        point = next(point for point in self.view.points if point.name == name)
        rows = self.view.history(point)
        return [(row.pool, row.verdict, [flag.code for flag in row.anomalies]) for row in rows]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    root = tmp_path_factory.mktemp("story")

    def script(request: JobRequest, earlier: int) -> Play:
        spec = AttemptSpec.from_json(AttemptPaths(request.attempt_dir).spec.read_bytes())
        return JOBS[str(spec.config["name"])].play(request, earlier)

    rehearsal = Rehearsal(root, script, points=0)
    points = [job.point(index) for index, job in enumerate(JOBS.values())]
    rehearsal.store.put_sweep(replace(rehearsal.store.sweep("s"), description="The story"), points)
    view = rehearsal.drive()
    return Told(rehearsal, view, write_report(rehearsal.store, rehearsal.paths, "s", print).read_text())


def test_every_point_succeeds_in_the_end(told: Told) -> None:
    assert {point.state for point in told.view.points} == {PointState.SUCCEEDED}
    assert "4 of 4 points succeeded" in told.report


def test_the_large_solve_moves_to_the_larger_card_and_the_report_tells_its_lineage(told: Told) -> None:
    first, second = told.attempts("infl-allsel-f32")
    assert (first[0], first[1]) == ("h100", Verdict.GPU_OOM)
    assert second == ("h200", Verdict.COMPLETED, ["oom_recovered"])
    assert "ran out of GPU memory on h100, then completed on h200" in told.report
    table = told.report.split("### Attempts", 1)[1].split("###", 1)[0]
    rows = [line for line in table.splitlines() if "infl-allsel-f32" in line]
    assert "`h100` | `gpu_oom`" in rows[0]
    assert "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.35 GiB" in rows[0]
    assert "try setting" not in rows[0], "advice is no reason"
    assert "`h200` | `completed`" in rows[1]
    checks = told.report.split("### Validation", 1)[1]
    assert "out of memory before, on a smaller pool: `infl-allsel-f32`" in checks


def test_an_error_after_both_steps_is_a_success_with_a_flag(told: Told) -> None:
    *_, last = told.attempts("infl-excl-allsel-f64-0222")
    assert last[1] is Verdict.COMPLETED
    assert "nonzero_exit_after_completion" in last[2]
    assert "all 2 steps are done and every score file is valid, yet the job ended with exit code 1" in told.report


@pytest.mark.parametrize(
    ("name", "torch", "nvml"),
    [("infl-excl-allsel-f64-0222", "170.0", "131.0"), ("infl-excl-allsel-f128-0222", "156.5", "120.0")],
)
def test_more_memory_than_the_card_has_is_flagged_and_the_devices_own_figure_shown(
    told: Told, name: str, torch: str, nvml: str
) -> None:
    *_, last = told.attempts(name)
    assert "memory_metric_unreliable" in last[2]
    row = next(line for line in told.report.splitlines() if line.startswith(f"| `{name}`"))
    assert f"{nvml}\\*" in row, "the cell shows what NVML saw, marked"
    assert f"`{name}` {torch} GiB (the device saw {nvml}, the card has 140.4)" in told.report
    assert f"torch reports a peak of {torch} GiB" in told.report
    assert f"but the card has 140.4 GiB and NVML saw {nvml} GiB at most" in told.report


def test_mlflow_gets_both_figures(told: Told) -> None:
    recorder = Recorder(sink=None, store=told.rehearsal.store, paths=told.rehearsal.paths)  # type: ignore[arg-type]
    point = next(point for point in told.view.points if point.name == "infl-excl-allsel-f64-0222")
    record = recorder.record(point, told.view.history(point))
    assert record.summary["summary/gpu_peak_gib"] == pytest.approx(131.0)
    torch = {row.value for row in record.metrics if row.key == "actor/perf/max_memory_allocated_gb"}
    assert torch == {170.0}


def test_timings_that_are_all_zero_are_flagged_in_words(told: Told) -> None:
    (only,) = told.attempts("infl-alltoken-timing-0221")
    assert only == ("h100", Verdict.COMPLETED, ["timing_all_zero"])
    assert "all 2 timings timing_s/influence_* are 0 in steps 1, 2 although rows were emitted" in told.report


def test_why_tells_the_same_story(told: Told) -> None:
    point = next(point for point in told.view.points if point.name == "infl-allsel-f32")
    found = explain_point(told.rehearsal.store, told.rehearsal.paths, point, 1)
    assert found.facts[0].text == "cuda_oom, the only cause that the log names"
    assert "moved from h100 to h200" in (found.tried[0].decision or "")
