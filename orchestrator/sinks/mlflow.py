"""Shows a sweep in MLflow: one experiment a sweep, a parent run for the sweep, a child run for each point.

**One run an attempt.** MLflow cannot take a metric back, so two attempts in one run would draw two curves over each
other. Every attempt gets its own run; the latest one stands for the point, directly below the sweep, and is written
live; the ones before it are hung below that run. So the sweep always has exactly one child a point, and a point that
moved from a smaller pool to a larger one keeps both stories. A point that never started has no run.

**Writing twice changes nothing.** Runs are found by tag before they are created (there is one writer, so there is no
race). A series is sent from the step after the last one sent, which a tag remembers; what a crash between sending and
remembering sends again carries the same time, and MLflow's primary key absorbs it. A step that a requeued job repeats
within one attempt keeps its first values. Parameters and summary figures are written once.

Footguns: `mlflow.start_run` on a finished run overwrites its end, so only `MlflowClient` is used. A run's start cannot
be changed later, but the orchestrator learns the true start of an attempt only from its outcome: times of metrics are
shifted to the start that the run was created with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.paths import RootPaths
from orchestrator.sinks import mlflow_names as names
from orchestrator.sinks import mlflow_view as view
from orchestrator.sinks.base import (
    Artifact,
    AttemptRecord,
    MetricRow,
    PointRecord,
    SinkError,
    SweepEnd,
    SweepRecord,
)
from orchestrator.sinks.mlflow_store import Location, open_client
from orchestrator.sinks.mlflow_summary import EXTREMES, PointFigures, common_figures, summarise

_PAGE = 1000


@dataclass(frozen=True)
class SweepRuns:
    """Where a sweep stands in MLflow; enough for a link that compares its points."""

    experiment_id: str
    run_id: str
    point_run_ids: tuple[str, ...]
    view: str | None = None
    """Id of the saved view that draws them."""


@dataclass(frozen=True)
class _Open:
    """A sweep that this process writes to."""

    experiment_id: str
    run_id: str
    record: SweepRecord
    inherited: Mapping[str, str] = field(default_factory=dict)
    """Tags that points carry as well."""


def open_mlflow(paths: RootPaths, environ: MutableMapping[str, str] = os.environ) -> MlflowSink:
    """Connect to `MLFLOW_TRACKING_URI`, else to the database under the root.

    Raises:
        SinkError: MLflow is missing, does not answer, or its database is of another version.
    """
    location = Location.resolve(paths, environ)
    return MlflowSink(open_client(location, environ), location)


class MlflowSink:
    """The `Sink` for MLflow. One instance, one writer."""

    def __init__(self, client: Any, location: Location) -> None:
        self._client, self._location = client, location
        self._open: dict[str, _Open] = {}

    def write_sweep(self, sweep: SweepRecord) -> str | None:
        """Find or create the experiment and the sweep's run; returns the run's id."""
        experiment = self._experiment(sweep.name)
        tags = names.sweep_tags(sweep)
        wanted = {names.KIND: names.KIND_SWEEP, names.CREATED: str(sweep.created_at_ms)}
        run = next(iter(self._search(experiment, wanted)), None)
        if run is None:
            run = self._create(experiment, sweep.name, sweep.created_at_ms, tags)
        self._set_tags(run, tags)
        self._set_status(run, "RUNNING", None)
        inherited = {key: value for key, value in tags.items() if key.startswith(names.INHERITED)}
        self._open[sweep.name] = opened = _Open(experiment, run.info.run_id, sweep, inherited)
        self._show(opened, self._figures(opened))
        return str(run.info.run_id)

    def write_point(self, point: PointRecord) -> None:
        """Bring the point's run up to date, and hang runs of earlier attempts below it.

        Raises:
            SinkError: `write_sweep` was not called for this sweep.
        """
        sweep = self._opened(point.sweep)
        if not point.attempts or (point.attempts[-1].started_at_ms is None and not point.is_judged):
            return
        latest = point.attempts[-1]
        runs = self._runs_by_attempt(sweep, point)
        tags = {**sweep.inherited, **names.point_tags(point, sweep.run_id)}
        run = runs.pop(latest.n, None) or self._create(sweep.experiment_id, point.name, _start(latest, point), tags)
        for attempt in point.attempts[:-1]:
            if attempt.n in runs:
                self._retire(runs[attempt.n], point, attempt, sweep.run_id, run.info.run_id)
        # what no longer holds, such as an anomaly that a later judgement took back
        self._drop_tags(run, [key for key in run.data.tags if names.is_ours(key) and key not in tags])
        self._set_tags(run, tags)
        self._add_params(run, {**point.fixed, **point.parameters})
        shift_ms = run.info.start_time - _start(latest, point)
        self._append(run, "metrics", point.metrics, shift_ms)
        self._append(run, "npz", point.npz, shift_ms)
        if point.is_judged:
            self._add_summary(run, point.summary)
            self._add_artifacts(run, point.artifacts)
        self._set_status(run, names.point_status(point), _end(latest, point))

    def finish_sweep(self, end: SweepEnd) -> None:
        """Close the sweep's run with its report, its figures and the view of its points; what is newer replaces."""
        opened = self._opened(end.name)
        for artifact in end.artifacts:
            if artifact.path.is_file():
                self._client.log_artifact(opened.run_id, str(artifact.path), artifact.folder or None)
        figures = self._figures(opened)
        run, total = self._client.get_run(opened.run_id), summarise(figures)
        note = {names.NOTE: end.note_markdown} if end.note_markdown else {}
        self._set_tags(run, names.legal({**total.tags, **note, "state": end.status.value}))
        self._drop_tags(run, [key for key in run.data.tags if key.startswith(EXTREMES) and key not in total.tags])
        self._replace_figures(run, {**end.summary, **total.metrics}, end.ended_at_ms)
        self._show(opened, figures)
        self._set_status(run, names.END_STATUS.get(end.status, "FAILED"), end.ended_at_ms)

    def _figures(self, sweep: _Open) -> list[PointFigures]:
        points = self._search(sweep.experiment_id, {names.KIND: names.KIND_POINT, names.SWEEP_RUN: sweep.run_id})
        return [PointFigures(run.info.run_name, names.has_succeeded(run.data.tags), run.data.metrics) for run in points]

    def _replace_figures(self, run: Any, figures: Mapping[str, float], time_ms: int) -> None:
        """Of one step the newest counts, so a figure that is another one now must be newer than the last."""
        rows = []
        for key, value in figures.items():
            legal, shown = names.metric_key(key), names.summary_value(value)
            old = run.data.metrics.get(legal)
            if old != shown:
                before = [] if old is None else self._client.get_metric_history(run.info.run_id, legal)
                rows.append(MetricRow(0, legal, shown, max([time_ms, *(metric.timestamp + 1 for metric in before)])))
        if rows:
            self._log(run.info.run_id, rows)

    def _show(self, sweep: _Open, points: Sequence[PointFigures]) -> None:
        """Keep the saved view up to date: which axes and figures its charts have."""
        axes = [names.metric_key(axis) for axis in sweep.record.axes]
        figures, created = common_figures(points), sweep.record.created_at_ms
        value = view.view_tag(sweep.record.name, sweep.run_id, created, axes, figures, len(points))
        experiment = self._client.get_experiment(sweep.experiment_id)
        tags = {view.TAG + sweep.run_id: value, names.EXPERIMENT_KIND: names.TRAINING}
        if sweep.record.description:
            tags[names.NOTE] = sweep.record.description
        for key, wanted in tags.items():
            if experiment.tags.get(key) != wanted:
                self._client.set_experiment_tag(sweep.experiment_id, key, wanted)

    def locate(self, name: str) -> SweepRuns | None:
        """The newest sweep of this name with its points' runs in order of their start; None when there is none."""
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return None
        sweeps = self._search(experiment.experiment_id, {names.KIND: names.KIND_SWEEP})
        if not sweeps:
            return None
        newest = max(sweeps, key=lambda run: int(run.data.tags[names.CREATED])).info.run_id
        points = self._search(experiment.experiment_id, {names.KIND: names.KIND_POINT, names.PARENT: newest})
        ordered = sorted(points, key=lambda run: (run.info.start_time, run.info.run_name))
        shown = newest if view.TAG + newest in experiment.tags else None
        return SweepRuns(experiment.experiment_id, newest, tuple(run.info.run_id for run in ordered), shown)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            root = self._location.artifact_root
            return str(self._client.create_experiment(name, artifact_location=f"{root}/{name}" if root else None))
        if found.lifecycle_stage != "active":
            restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            raise SinkError(f"MLflow experiment {name} was deleted; bring it back with: {restore}, or rename the sweep")
        return str(found.experiment_id)

    def _opened(self, name: str) -> _Open:
        if name not in self._open:
            raise SinkError(f"sweep {name} is not open in MLflow: write_sweep failed or was not called")
        return self._open[name]

    def _search(self, experiment_id: str, tags: Mapping[str, str]) -> list[Any]:
        condition = " AND ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        found: list[Any] = []
        page = None
        while page is None or page.token:
            page = self._client.search_runs(
                [experiment_id], condition, max_results=_PAGE, page_token=page.token if page else None
            )
            found += page
        return found

    def _runs_by_attempt(self, sweep: _Open, point: PointRecord) -> dict[int, Any]:
        found = self._search(sweep.experiment_id, {names.SWEEP_RUN: sweep.run_id, names.POINT_ID: point.id})
        return {int(run.data.tags[names.ATTEMPT]): run for run in found}

    def _create(self, experiment_id: str, name: str, started_at_ms: int, tags: Mapping[str, str]) -> Any:
        return self._client.create_run(experiment_id, start_time=started_at_ms, tags=dict(tags), run_name=name)

    def _retire(self, run: Any, point: PointRecord, attempt: AttemptRecord, sweep_run: str, successor: str) -> None:
        self._set_tags(run, names.retired_tags(point, attempt, sweep_run, successor))
        name = f"{point.name} (attempt {attempt.n})"
        if run.info.run_name != name:
            self._client.update_run(run.info.run_id, name=name)
        self._set_status(run, names.attempt_status(attempt), _end(attempt, point))

    def _set_tags(self, run: Any, tags: Mapping[str, str]) -> None:
        changed = {key: value for key, value in tags.items() if run.data.tags.get(key) != value}
        if changed:
            from mlflow.entities import RunTag

            self._client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in changed.items()])

    def _drop_tags(self, run: Any, keys: Iterable[str]) -> None:
        for key in keys:
            self._client.delete_tag(run.info.run_id, key)

    def _add_params(self, run: Any, params: Mapping[str, Any]) -> None:
        """Those the run lacks: MLflow refuses to change one."""
        from mlflow.entities import Param

        legal = {names.metric_key(key): names.param_value(value) for key, value in params.items()}
        new = [Param(key, value) for key, value in legal.items() if key not in run.data.params]
        if new:
            self._client.log_batch(run.info.run_id, params=new)

    def _append(self, run: Any, series: str, rows: Iterable[MetricRow], shift_ms: int) -> None:
        """Send the steps after the last one sent, then remember how far that was."""
        cursor = f"{names.CURSOR}{series}"
        sent = int(run.data.tags.get(cursor, -1))
        new = [replace(row, timestamp_ms=row.timestamp_ms + shift_ms) for row in rows if row.step > sent]
        if new:
            self._log(run.info.run_id, new)
            self._client.set_tag(run.info.run_id, cursor, str(max(row.step for row in new)))

    def _add_summary(self, run: Any, summary: Mapping[str, float]) -> None:
        """At step 0, where the UI draws bars over runs."""
        rows = [
            MetricRow(0, key, names.summary_value(value), run.info.start_time)
            for key, value in summary.items()
            if names.metric_key(key) not in run.data.metrics
        ]
        if rows:
            self._log(run.info.run_id, rows)

    def _log(self, run_id: str, rows: Sequence[MetricRow]) -> None:
        from mlflow.entities import Metric

        legal = [
            Metric(names.metric_key(row.key), names.metric_value(row.value), row.timestamp_ms, row.step) for row in rows
        ]
        self._client.log_batch(run_id, metrics=legal)  # cuts into requests of 1000 by itself

    def _add_artifacts(self, run: Any, artifacts: Sequence[Artifact]) -> None:
        """Files that are not there yet in their full size; those of a judged attempt do not change any more."""
        run_id = run.info.run_id
        kept = {
            file.path: file.file_size
            for folder in sorted({artifact.folder for artifact in artifacts})
            for file in self._client.list_artifacts(run_id, folder or None)
        }
        for artifact in artifacts:
            target = f"{artifact.folder}/{artifact.path.name}" if artifact.folder else artifact.path.name
            if artifact.path.is_file() and kept.get(target) != artifact.path.stat().st_size:
                self._client.log_artifact(run_id, str(artifact.path), artifact.folder or None)

    def _set_status(self, run: Any, status: str, ended_at_ms: int | None) -> None:
        run_id = run.info.run_id
        if status == "RUNNING":
            if run.info.status != status:
                self._client.update_run(run_id, status=status)
        elif (run.info.status, run.info.end_time) != (status, ended_at_ms):
            self._client.set_terminated(run_id, status, end_time=ended_at_ms)


def _start(attempt: AttemptRecord, point: PointRecord) -> int:
    """An attempt that never ran starts when it ended."""
    return attempt.started_at_ms or attempt.ended_at_ms or point.ended_at_ms or 0


def _end(attempt: AttemptRecord, point: PointRecord) -> int:
    return attempt.ended_at_ms or point.ended_at_ms or _start(attempt, point)
