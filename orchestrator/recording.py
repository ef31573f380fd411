"""From the store and the attempt folders to what the sinks take. Files are the truth; a record can be made at any time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.budget import spent
from orchestrator.collect.attempt import collect_attempt
from orchestrator.ledger import AttemptRow, PointRow, SweepRow, View
from orchestrator.model import AttemptState, PointState
from orchestrator.paths import AttemptPaths, RootPaths
from orchestrator.sinks.base import (
    Artifact,
    AttemptRecord,
    MetricRow,
    PointRecord,
    Sink,
    SweepEnd,
    SweepRecord,
    metric_rows,
)
from orchestrator.sinks.note import summary_note
from orchestrator.snapshot import axes
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.triage import evidence_json
from orchestrator.triage.evidence import GIB, Evidence
from reports.metrics import GRAD_NORM, HESSIAN_SOLVE, ROWS_EMITTED, STEP, UPDATE_ACTOR, Names

NPZ_STATISTICS = ("valid", "mean", "std", "min", "max", "nan_in_valid")
TYPICAL = {
    "step_s": STEP,
    "update_actor_s": UPDATE_ACTOR,
    "hessian_solve_s": HESSIAN_SOLVE,
    "grad_norm": GRAD_NORM,
    "rows": ROWS_EMITTED,
}
"""Figures of a point that are medians over its steps."""
PLOTS = "plots"
REPORT_SUFFIXES = (".md", ".html", ".csv")
PLOT_SUFFIXES = (".png", ".svg")


@dataclass(frozen=True)
class Recorder:
    """Writes points of one sweep to a sink: the loop's `PointLogger`."""

    sink: Sink
    store: Store
    paths: RootPaths
    gpus: int = 0
    """Of one attempt that has a pool."""

    def log(self, point: PointRow, history: Sequence[AttemptRow]) -> None:
        self.sink.write_point(self.record(point, history))

    def record(self, point: PointRow, history: Sequence[AttemptRow]) -> PointRecord:
        last = history[-1]
        folder = self.paths.attempt(point.sweep, point.id, last.n)
        evidence = self._evidence(last, folder)
        started_ms = _ms(last.started_at or last.created_at)
        return PointRecord(
            sweep=point.sweep,
            id=point.id,
            name=point.name,
            state=point.state,
            parameters=point.parameters,
            replicate=frozenset(point.replicate),
            fixed=last.patch,
            trials=tuple(trial.number for trial in self.store.trials(point.sweep, point.id)),
            verdict=last.verdict,
            anomalies=last.anomalies,
            attempts=tuple(_attempt(attempt) for attempt in history),
            started_at_ms=_ms(history[0].started_at or history[0].created_at),
            ended_at_ms=_ms(last.ended_at) if last.ended_at else None,
            metrics=metric_rows(evidence.metrics, started_ms),
            npz=_npz_rows(evidence, started_ms),
            summary={**_summary(evidence), **_taken(last, self.gpus)},
            artifacts=tuple(
                Artifact(path) for path in (folder.config, folder.console, folder.outcome) if path.exists()
            ),
        )

    def _evidence(self, attempt: AttemptRow, folder: AttemptPaths) -> Evidence:
        """What was collected, or for a running attempt what is there by now."""
        if attempt.state in (AttemptState.COLLECTED, AttemptState.JUDGED):
            return evidence_json.loads(self.store.evidence(attempt) or "")
        return collect_attempt(
            folder.dir, backend_ended=False, gone=False, scheduler_reason=None, cancel_requested=False
        )


def sweep_record(sweep: SweepRow, points: Sequence[PointRow]) -> SweepRecord:
    spec = SweepSpec.model_validate(sweep.spec)
    tags = {"spec": sweep.spec_path, "command": sweep.command, "backend": sweep.backend, "profile": sweep.profile or ""}
    if sweep.git:
        tags["commit"] = str(sweep.git["commit"])
    overrides = "\n".join(f"- `{override}`" for override in spec.overrides)
    return SweepRecord(
        name=sweep.name,
        created_at_ms=_ms(sweep.created_at),
        description=sweep.description,
        axes=tuple(spec.axes) if spec.search else axes(points),  # a search begins without points
        tags=tags,
        note_markdown=f"{sweep.description}\n\nFixed for all points:\n\n{overrides}\n"
        if overrides
        else sweep.description,
    )


def sweep_end(paths: RootPaths, sweep: SweepRow, view: View, gpus: int, succeeded: bool, ended_at: float) -> SweepEnd:
    """How a settled sweep ended, with every file that its report has.

    Args:
        gpus: of one attempt that has a pool.
    """
    report = paths.report(sweep.name)
    return SweepEnd(
        name=sweep.name,
        status=PointState.SUCCEEDED if succeeded else PointState.FAILED,
        ended_at_ms=_ms(ended_at),
        note_markdown=summary_note(report.read_text()) if report.exists() else "",
        summary=_totals(sweep, view, gpus, ended_at),
        artifacts=tuple(report_files(paths, sweep.name)),
    )


def report_files(paths: RootPaths, sweep: str) -> list[Artifact]:
    """The report in all its forms, its tables and its plots, as they lie in the sweep's folder."""
    folder = paths.sweep(sweep)
    beside = [file for file in sorted(folder.glob("*.*")) if file.suffix in REPORT_SUFFIXES]
    plots = [file for file in sorted((folder / PLOTS).glob("*.*")) if file.suffix in PLOT_SUFFIXES]
    return [*(Artifact(file) for file in beside), *(Artifact(file, PLOTS) for file in plots)]


def _totals(sweep: SweepRow, view: View, gpus: int, ended_at: float) -> dict[str, float]:
    shown = [point for point in view.points if point.state is not PointState.SKIPPED]
    succeeded = sum(point.state is PointState.SUCCEEDED for point in shown)
    last = [history[-1] for point in shown if (history := view.history(point))]
    pooled = gpus if any(attempt.pool for attempt in last) else 0
    return {
        "sweep/points": len(shown),
        "sweep/succeeded": succeeded,
        "sweep/failed": len(shown) - succeeded,
        "sweep/flagged": sum(bool(attempt.anomalies) for attempt in last),
        "sweep/attempts": sum(len(view.history(point)) for point in shown),
        "sweep/minutes": (ended_at - sweep.created_at) / 60,
        **({"sweep/gpu_hours": spent(view, pooled, None, ended_at).used} if pooled else {}),
    }


def _attempt(attempt: AttemptRow) -> AttemptRecord:
    return AttemptRecord(
        n=attempt.n,
        state=attempt.state,
        pool=attempt.pool,
        job=attempt.job_name,
        verdict=attempt.verdict,
        reason=attempt.reason,
        exit_code=attempt.exit_code,
        started_at_ms=_ms(attempt.started_at) if attempt.started_at else None,
        ended_at_ms=_ms(attempt.ended_at) if attempt.ended_at else None,
    )


def _npz_rows(evidence: Evidence, started_ms: int) -> list[MetricRow]:
    return [
        MetricRow(file.step, f"npz/{name}", float(value), started_ms + file.step)
        for file in evidence.npz
        if file.step is not None and file.error is None
        for name in NPZ_STATISTICS
        if (value := getattr(file, name)) is not None
    ]


def _summary(evidence: Evidence) -> dict[str, float]:
    """One figure a run: the physical peaks in GiB, and the spread of the first step's scores as the reports quote it."""
    figures = {
        "summary/gpu_peak_gib": evidence.gpu_peak_bytes and evidence.gpu_peak_bytes / GIB,
        "summary/host_peak_gib": evidence.host_peak_bytes and evidence.host_peak_bytes / GIB,
        "summary/score_std": next((file.std for file in evidence.npz if file.error is None), None),
        "summary/steps": len(evidence.steps),
        **{f"summary/{name}": _typical(evidence, names) for name, names in TYPICAL.items()},
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def _typical(evidence: Evidence, names: Names) -> float | None:
    """The median over the steps that have a finite value."""
    found = [next((step[name] for name in names if name in step), math.nan) for step in evidence.metrics.values()]
    finite = [value for value in found if math.isfinite(value)]
    return median(finite) if finite else None


def _taken(attempt: AttemptRow, gpus: int) -> dict[str, float]:
    if attempt.started_at is None or attempt.ended_at is None:
        return {}
    seconds = attempt.ended_at - attempt.started_at
    on_gpus = {"summary/gpu_hours": seconds * gpus / 3600} if gpus and attempt.pool else {}
    return {"summary/minutes": seconds / 60, **on_gpus}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
