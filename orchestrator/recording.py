"""From the store and the attempt folders to what the sinks take. Files are the truth; a record can be made at any time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.collect.attempt import collect_attempt
from orchestrator.ledger import AttemptRow, PointRow, SweepRow
from orchestrator.model import AttemptState
from orchestrator.paths import AttemptPaths, RootPaths
from orchestrator.sinks.base import Artifact, AttemptRecord, MetricRow, PointRecord, Sink, SweepRecord, metric_rows
from orchestrator.snapshot import axes
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.triage import evidence_json
from orchestrator.triage.evidence import GIB, Evidence

NPZ_STATISTICS = ("valid", "mean", "std", "min", "max", "nan_in_valid")


@dataclass(frozen=True)
class Recorder:
    """Writes points of one sweep to a sink: the loop's `PointLogger`."""

    sink: Sink
    store: Store
    paths: RootPaths

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
            fixed=last.patch,
            verdict=last.verdict,
            anomalies=last.anomalies,
            attempts=tuple(_attempt(attempt) for attempt in history),
            started_at_ms=_ms(history[0].started_at or history[0].created_at),
            ended_at_ms=_ms(last.ended_at) if last.ended_at else None,
            metrics=metric_rows(evidence.metrics, started_ms),
            npz=_npz_rows(evidence, started_ms),
            summary=_summary(evidence),
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
        axes=axes(points),
        tags=tags,
        note_markdown=f"{sweep.description}\n\nFixed for all points:\n\n{overrides}\n"
        if overrides
        else sweep.description,
    )


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
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
