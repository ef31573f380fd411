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

SHOWN = frozenset({"state", "verdict", "pool", "backend", "job", "attempts", "anomalies", "settings", "trial"})
"""Tags of a point for people: short, because they are typed into searches and head the columns of tables."""
ANOMALY = "anomaly."
"""+ code: "true" where a run is flagged with it, so that `tags.anomaly.nan_scores = 'true'` finds all of them."""
OURS = "orchestrator."
"""Everything that is only for finding runs again."""
KIND = "orchestrator.kind"
SWEEP = "orchestrator.sweep"
SWEEP_RUN = "orchestrator.sweep_run"
CREATED = "orchestrator.created_at_ms"
POINT_ID = "orchestrator.point_id"
ATTEMPT = "orchestrator.attempt"
CURSOR = "orchestrator.logged."
"""+ series: the last step of it that was sent."""

EXPERIMENT_KIND = "mlflow.experimentKind"
TRAINING = "custom_model_development"
"""Without this tag of an experiment MLflow's pages guess what it is, and may open those for language model traces."""

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
        "state": "running",
        "orchestrator.axes": ",".join(sweep.axes),
        "orchestrator.description": sweep.description,
        NOTE: sweep.note_markdown or sweep.description,
    }
    return legal(tags)


def has_succeeded(tags: Mapping[str, str]) -> bool:
    """Whether the tags of a point's run say so."""
    return tags.get("state") == PointState.SUCCEEDED.value


def is_ours(tag: str) -> bool:
    """Whether a tag of a point's run says something that may no longer hold."""
    return tag in SHOWN or (tag.startswith((OURS, ANOMALY)) and not tag.startswith(CURSOR))


def point_tags(point: PointRecord, sweep_run: str) -> dict[str, str]:
    """Tags of the run that stands for a point: its latest attempt, and one line for each earlier one."""
    tags = {
        **({"trial": ", ".join(map(str, point.trials))} if point.trials else {}),
        **_attempt_tags(point, point.attempts[-1], sweep_run),
        KIND: KIND_POINT,
        PARENT: sweep_run,
        NOTE: point_note(point),
        "state": point.state.value,
        "verdict": point.verdict.value if point.verdict else "",
        "attempts": str(len(point.attempts)),
        "anomalies": ",".join(sorted({anomaly.code for anomaly in point.anomalies})),
        **{f"{ANOMALY}{anomaly.code}": "true" for anomaly in point.anomalies},
    }
    return legal(tags)


def point_note(point: PointRecord) -> str:
    """A point's story in Markdown: every attempt, and what is odd about the last one."""
    lines = [f"{_escaped(point.name)}: **{point.state.value}**"]
    lines += ["", "| attempt | pool | came to |", "| ---: | --- | --- |"]
    for attempt in point.attempts:
        lines.append(f"| {attempt.n} | {_escaped(attempt.pool or '')} | {_escaped(_in_words(attempt))} |")
    flags = [f"- `{anomaly.code}`: {_escaped(anomaly.message or anomaly.code)}" for anomaly in point.anomalies]
    return "\n".join([*lines, *([""] if flags else []), *flags])


def retired_tags(point: PointRecord, attempt: AttemptRecord, sweep_run: str, successor: str) -> dict[str, str]:
    """Tags of an attempt that another one replaced; it hangs below the run that stands for the point now."""
    note = f"{_escaped(point.name)}, attempt {attempt.n}: {_escaped(_in_words(attempt))}; another one followed"
    return legal({**_attempt_tags(point, attempt, sweep_run), KIND: KIND_ATTEMPT, PARENT: successor, NOTE: note})


def _attempt_tags(point: PointRecord, attempt: AttemptRecord, sweep_run: str) -> dict[str, str]:
    return {
        SWEEP: point.sweep,
        SWEEP_RUN: sweep_run,
        POINT_ID: point.id,
        ATTEMPT: str(attempt.n),
        "state": attempt.state.value,
        "verdict": attempt.verdict.value if attempt.verdict else "",
        "pool": attempt.pool or "",
        "backend": attempt.backend or "",
        "job": attempt.job or "",
        "settings": _settings(point),
    }


def _settings(point: PointRecord) -> str:
    """The same for all replicates: group by it for the mean curve of a setting with its band."""
    fixed = {name: value for name, value in point.parameters.items() if name not in point.replicate}
    return ", ".join(f"{name}={param_value(value)}" for name, value in fixed.items())


def _escaped(text: str) -> str:
    """As one cell of a Markdown table."""
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", " ".join(text.split()))


def _in_words(attempt: AttemptRecord) -> str:
    """gpu_oom, exit code 1: CUDA out of memory in step 1"""
    code = f", exit code {attempt.exit_code}" if attempt.exit_code else ""
    why = f": {attempt.reason}" if attempt.reason else ""
    return f"{attempt.verdict or attempt.state}{code}{why}"


def legal(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags without empty values, and none longer than every server takes."""
    return {metric_key(key): value[:_LONGEST_TAG] for key, value in tags.items() if value}
