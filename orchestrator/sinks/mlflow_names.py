"""How our facts are called in MLflow: tag names, legal metric keys, statuses. Pure.

MLflow refuses keys with `@ = , % [ ] #` and keys that are no tidy relative path, and cuts long tags with a warning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from orchestrator.model import AttemptState, PointState, Scalar, Verdict
from orchestrator.sinks.base import AttemptRecord, PointRecord, SweepRecord

PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
INHERITED = ("mlflow.source.", "mlflow.user")
"""Tags of the sweep that its points carry too; they fill the header of a run's page."""

OURS = "orchestrator."
KIND = "orchestrator.kind"
SWEEP = "orchestrator.sweep"
SWEEP_RUN = "orchestrator.sweep_run"
CREATED = "orchestrator.created_at_ms"
POINT_ID = "orchestrator.point_id"
ATTEMPT = "orchestrator.attempt"
ANOMALY = "orchestrator.anomaly."
CURSOR = "orchestrator.logged."
"""+ series: the last step of it that was sent."""

KIND_SWEEP, KIND_POINT, KIND_ATTEMPT = "sweep", "point", "attempt"

END_STATUS = {
    PointState.SUCCEEDED: "FINISHED",
    PointState.FAILED: "FAILED",
    PointState.BLOCKED: "FAILED",
    PointState.PRUNED: "KILLED",
    PointState.CANCELLED: "KILLED",
    PointState.SKIPPED: "KILLED",
}
_VERDICT_STATUS = {Verdict.COMPLETED: "FINISHED", Verdict.CANCELLED: "KILLED", Verdict.PREEMPTED: "KILLED"}
_LONGEST_KEY = 250
_LONGEST_TAG = 5000


def metric_key(name: str) -> str:
    """A legal key; `@` becomes `_at_`, as in verl's own MLflow logger, so that names agree."""
    legal = re.sub(r"[^\w\-.:/ ]", "_", name.replace("@", "_at_"))
    parts = [part if part.strip(".") else "_" * len(part) for part in legal.split("/") if part]
    return "/".join(parts)[:_LONGEST_KEY] or "_"


def metric_value(value: float) -> float:
    """Infinities as NaN: MLflow would store 1.8e308, and one such value flattens every chart it is in."""
    return value if math.isfinite(value) else math.nan


def summary_value(value: float) -> float:
    """Four significant digits, because the UI's tables print every digit; whole numbers stay exact."""
    return value if not math.isfinite(value) or value == int(value) else float(f"{value:.4g}")


def param_value(value: Scalar) -> str:
    """As in a sweep file: true, null, 1e-06."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def attempt_status(attempt: AttemptRecord) -> str:
    """Of an attempt that is not, or not yet, the point's last word."""
    if attempt.state is not AttemptState.JUDGED:
        return "RUNNING"
    return _VERDICT_STATUS.get(attempt.verdict, "FAILED") if attempt.verdict else "FAILED"


def point_status(point: PointRecord) -> str:
    return END_STATUS.get(point.state) or attempt_status(point.attempts[-1])


def sweep_tags(sweep: SweepRecord) -> dict[str, str]:
    tags = {
        **sweep.tags,
        KIND: KIND_SWEEP,
        SWEEP: sweep.name,
        CREATED: str(sweep.created_at_ms),
        "orchestrator.axes": ",".join(sweep.axes),
        "orchestrator.description": sweep.description,
        NOTE: sweep.note_markdown or sweep.description,
    }
    return _legal(tags)


def point_tags(point: PointRecord, sweep_run: str) -> dict[str, str]:
    """Tags of the run that stands for a point: its latest attempt, and one line for each earlier one."""
    tags = {
        **_attempt_tags(point, point.attempts[-1], sweep_run),
        KIND: KIND_POINT,
        PARENT: sweep_run,
        "orchestrator.state": point.state.value,
        "orchestrator.verdict": point.verdict.value if point.verdict else "",
        "orchestrator.attempts": str(len(point.attempts)),
        "orchestrator.anomalies": ",".join(sorted({anomaly.code for anomaly in point.anomalies})),
        **{f"{ANOMALY}{anomaly.code}": anomaly.message or anomaly.code for anomaly in point.anomalies},
        **{f"{ATTEMPT}.{attempt.n}": _in_words(attempt) for attempt in point.attempts},
    }
    return _legal(tags)


def retired_tags(point: PointRecord, attempt: AttemptRecord, sweep_run: str, successor: str) -> dict[str, str]:
    """Tags of an attempt that another one replaced; it hangs below the run that stands for the point now."""
    return _legal({**_attempt_tags(point, attempt, sweep_run), KIND: KIND_ATTEMPT, PARENT: successor})


def _attempt_tags(point: PointRecord, attempt: AttemptRecord, sweep_run: str) -> dict[str, str]:
    return {
        SWEEP: point.sweep,
        SWEEP_RUN: sweep_run,
        POINT_ID: point.id,
        ATTEMPT: str(attempt.n),
        "orchestrator.state": attempt.state.value,
        "orchestrator.verdict": attempt.verdict.value if attempt.verdict else "",
        "orchestrator.pool": attempt.pool or "",
        "orchestrator.backend": attempt.backend or "",
        "orchestrator.job": attempt.job or "",
    }


def _in_words(attempt: AttemptRecord) -> str:
    """h100: gpu_oom, exit code 1: CUDA out of memory in step 1"""
    where = f"{attempt.pool}: " if attempt.pool else ""
    code = f", exit code {attempt.exit_code}" if attempt.exit_code else ""
    why = f": {attempt.reason}" if attempt.reason else ""
    return f"{where}{attempt.verdict or attempt.state}{code}{why}"


def _legal(tags: Mapping[str, str]) -> dict[str, str]:
    """Without empty values, and none longer than every server takes."""
    return {metric_key(key): value[:_LONGEST_TAG] for key, value in tags.items() if value}
