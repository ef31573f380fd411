"""From the store to the plain `SweepSnapshot` that reports and sinks draw."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.ledger import AttemptRow, EventRow, PointRow, SweepRow, View
from orchestrator.model import AttemptState, PointState, Scalar
from orchestrator.patches import look_up
from orchestrator.paths import RootPaths
from orchestrator.search.reporting import search_snapshot
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.triage import evidence_json, words
from orchestrator.triage.evidence import Evidence, NpzFacts
from reports.snapshot import (
    AttemptSnapshot,
    ChangesSnapshot,
    Expected,
    GitState,
    NpzSnapshot,
    PointSnapshot,
    PredictionSnapshot,
    SweepSnapshot,
    parse_changes,
)

MOST_ERRORS = 5
"""Failures in a log that a snapshot names."""


def sweep_snapshot(store: Store, paths: RootPaths, sweep: str) -> SweepSnapshot:
    """All that a report of this sweep says; points that the sweep file no longer has, and never ran, are left out."""
    row = store.sweep(sweep)
    spec = SweepSpec.model_validate(row.spec)
    view = store.view(sweep)
    moves = _moves(store.events(sweep))
    shown = [point for point in view.points if point.state is not PointState.SKIPPED]
    evidence = {point.id: deciding_evidence(store, view.history(point)) for point in shown}
    points = tuple(
        point_snapshot(
            paths,
            point,
            view.history(point),
            evidence[point.id],
            spec.resources.gpus,
            _unpatched(store, point, view.history(point)),
            moves,
        )
        for point in shown
    )
    found = [item for item in evidence.values() if item is not None]
    used = [attempt.gpu_hours for point in points for attempt in point.attempts if attempt.gpu_hours is not None]
    return SweepSnapshot(
        name=row.name,
        description=row.description,
        created_at=row.created_at,
        finished_at=row.finished_at,
        state=sweep_state(row, view),
        spec_path=row.spec_path,
        command=row.command,
        config=spec.config,
        profile=row.profile,
        overrides=tuple(spec.overrides),
        axes=axes(shown),
        points=points,
        expected_steps=next((item.expected_steps for item in found), None),
        expected_npz=next((item.expected_npz for item in found), None),
        git=git_state(row.git),
        environment=row.environment,
        gpu_hours=sum(used) if used else None,
        gpu_hours_limit=spec.budget.gpu_hours,
        changes=changes_since(row.git),
        backend=row.backend,
        gpus=spec.resources.gpus,
        search=search_snapshot(
            spec, store.trials(sweep) if spec.search else (), {point.id: point.name for point in view.points}
        ),
    )


def git_state(stored: Mapping[str, Any] | None) -> GitState | None:
    """The repository that a sweep was started from, out of its row."""
    return GitState(**{key: value for key, value in stored.items() if key != "changes"}) if stored else None


def changes_since(stored: Mapping[str, Any] | None) -> ChangesSnapshot | None:
    """What had changed since the sweep before, as it was found when this one was started."""
    found = stored.get("changes") if stored else None
    return parse_changes(found) if found else None


def _moves(events: Sequence[EventRow]) -> dict[tuple[str, int], str]:
    """(point, attempt) -> why it ran where it ran, as it was written when the attempt began."""
    return {
        (event.point, event.attempt): why
        for event in events
        if event.point and event.attempt and event.to_state == AttemptState.CREATED and event.from_state is None
        if (why := (event.detail or "").partition(": ")[2])
    }


def deciding_evidence(store: Store, history: Sequence[AttemptRow]) -> Evidence | None:
    """Of the newest attempt that was collected."""
    for attempt in reversed(history):
        text = store.evidence(attempt)
        if text:
            return evidence_json.loads(text)
    return None


def _unpatched(store: Store, point: PointRow, history: Sequence[AttemptRow]) -> Mapping[str, Scalar]:
    """The sweep file's values of all keys that an attempt changed."""
    keys = {key for attempt in history for key in attempt.patch}
    if not keys:
        return {}
    config = store.config(point.sweep, point.id)
    return {key: look_up(config, key) for key in keys}


def point_snapshot(
    paths: RootPaths,
    point: PointRow,
    history: Sequence[AttemptRow],
    evidence: Evidence | None,
    gpus: int,
    unpatched: Mapping[str, Scalar] | None = None,
    moves: Mapping[tuple[str, int], str] | None = None,
) -> PointSnapshot:
    """One point with the facts of its deciding attempt.

    Args:
        gpus: what an attempt holds, for the GPU-hours.
        unpatched: the sweep file's values of keys that attempts changed.
        moves: (point, attempt) -> why it ran where it ran.
    """
    last = history[-1] if history else None
    facts = evidence or Evidence(ended=False)
    tries = tuple(
        _attempt(attempt, gpus, unpatched or {}, (moves or {}).get((point.id, attempt.n)), _folder(paths, attempt))
        for attempt in history
    )
    return PointSnapshot(
        id=point.id,
        name=point.name,
        parameters=point.parameters,
        replicate=point.replicate,
        state=point.state.value,
        verdict=last.verdict.value if last and last.verdict else None,
        reason=point.reason or (last.reason if last else None),
        anomalies=tuple((anomaly.code, anomaly.message) for anomaly in last.anomalies) if last else (),
        attempts=tries,
        metrics=facts.metrics,
        npz=tuple(_npz(file) for file in facts.npz),
        resumed_after=facts.resumed_after,
        card_bytes=facts.card_bytes,
        gpu_peak_bytes=facts.gpu_peak_bytes,
        host_peak_bytes=facts.host_peak_bytes,
        host_limit_bytes=facts.host_limit_bytes,
        started_at=history[0].started_at if history else None,
        ended_at=last.ended_at if last else None,
        evidence=last.facts if last else (),
        folder=tries[-1].folder if tries else None,
        predicted=_prediction(point, last),
        step_lines=facts.step_lines,
        log_lines=facts.log_lines,
        errors=tuple(words.place(signature) for signature in facts.signatures[:MOST_ERRORS]),
        dims=next((file.dims for file in reversed(facts.npz) if file.dims), ()),
        hardware=facts.hardware,
    )


def _folder(paths: RootPaths, attempt: AttemptRow) -> str:
    """An attempt's folder, relative to the report."""
    folder = paths.attempt(attempt.sweep, attempt.point, attempt.n).dir
    return os.path.relpath(folder, paths.sweep(attempt.sweep))


def _npz(file: NpzFacts) -> NpzSnapshot:
    names = {field.name for field in dataclasses.fields(NpzSnapshot)}
    return NpzSnapshot(**{name: value for name, value in vars(file).items() if name in names})


def _prediction(point: PointRow, last: AttemptRow | None) -> PredictionSnapshot | None:
    """What was expected of the deciding attempt; a patched one is another configuration than the predicted one."""
    if point.predicted is None or last is None or last.patch:
        return None
    forecast = point.predicted.on.get(last.pool or "")
    if forecast is None:
        return None
    guesses = (forecast.gpu_bytes, forecast.host_bytes, forecast.seconds)
    return PredictionSnapshot(*(Expected(**dataclasses.asdict(guess)) if guess else None for guess in guesses))


def _attempt(
    attempt: AttemptRow, gpus: int, unpatched: Mapping[str, Scalar], moved: str | None, folder: str
) -> AttemptSnapshot:
    seconds = attempt.ended_at - attempt.started_at if attempt.ended_at and attempt.started_at else None
    return AttemptSnapshot(
        n=attempt.n,
        pool=attempt.pool,
        state=attempt.state.value,
        verdict=attempt.verdict.value if attempt.verdict else None,
        exit_code=attempt.exit_code,
        signal=attempt.signal,
        reason=attempt.reason,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        gpu_hours=seconds * gpus / 3600 if seconds is not None and gpus and attempt.pool else None,
        patch=attempt.patch,
        unpatched={key: unpatched[key] for key in attempt.patch if key in unpatched},
        moved=moved,
        node=attempt.measured.node if attempt.measured else None,
        gpu_peak_bytes=attempt.measured.gpu_bytes if attempt.measured else None,
        host_peak_bytes=attempt.measured.host_bytes if attempt.measured else None,
        evidence=attempt.facts,
        folder=folder,
    )


def axes(points: Sequence[PointRow]) -> tuple[str, ...]:
    """Names of all parameters in the order of their first appearance, replicate axes last."""
    names: dict[str, Scalar] = {}
    for point in points:
        names.update(point.parameters)
    replicate = {name for point in points for name in point.replicate}
    return (*(name for name in names if name not in replicate), *(name for name in names if name in replicate))


def sweep_state(row: SweepRow, view: View) -> str:
    """running | stopped | failed | succeeded, for people and for `status --json`."""
    if row.stop_reason:
        return "stopped"
    if not view.finished:
        return "running"
    bad = [point for point in view.points if point.state not in _FINE]
    return "failed" if bad else "succeeded"


_FINE = (PointState.SUCCEEDED, PointState.SKIPPED, PointState.PRUNED)
