"""Runs that somebody else started, as a sweep of the store: for the report, MLflow, `status` and `why`.

A run is a point with one attempt that was judged already; its attempt folder is a link to where the run lies. What Hydra or
our own `attempt.json` noted of its overrides gives the parameters: those that are not the same in all runs.
Importing again adds what is new and leaves the rest as it is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from orchestrator.errors import UsageError
from orchestrator.identity import point_id
from orchestrator.judging import judge_attempt
from orchestrator.launch import Ask, new_attempt
from orchestrator.ledger import AttemptRow, PointRow, SweepRow
from orchestrator.measuring import collected_columns
from orchestrator.model import AttemptState, Point, PointState, Scalar, Verdict
from orchestrator.naming import safe_name
from orchestrator.overrides import assignment, override_key
from orchestrator.paths import RootPaths
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.triage.evidence import Evidence
from trainer_ext import records

BACKEND = "collected"
"""Stands in the store for whoever ran these."""
HYDRA_OVERRIDES = ".hydra/overrides.yaml"
_MAX_NOTE = 1 << 20


@dataclass(frozen=True)
class ForeignRun:
    path: Path
    evidence: Evidence
    pool: str | None = None
    overrides: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    """What was noted of how it was started, by key."""


def import_runs(
    store: Store, paths: RootPaths, name: str, runs: Sequence[ForeignRun], command: str, now: float
) -> None:
    """Put runs into the store as points of the sweep `name`, judged.

    Raises:
        UsageError: a sweep of that name was not collected, or a folder is where a run's link belongs.
    """
    if name in store.sweep_names() and store.sweep(name).backend != BACKEND:
        raise UsageError(f"{name} is a sweep that ran here; choose another name for collected runs")
    spec = SweepSpec.model_validate(
        {"name": name, "description": "Runs that someone else started.", "backend": "local"}
    )
    row = SweepRow(
        name=name,
        description=spec.description,
        spec_path="",
        spec=spec.model_dump(mode="json"),
        backend=BACKEND,
        profile=None,
        command=command,
        git=None,
        environment={},
        created_at=now,
    )
    known = [_Noted(point.hash, point.name, dict(_read(point.overrides))) for point in _known(store, name)]
    new = {_digest(run.path): run for run in runs}
    noted = [_Noted(digest, safe_name(run.path.resolve().name), run.overrides) for digest, run in new.items()]
    there = {one.digest for one in known}
    store.put_sweep(row, points_of([*known, *(one for one in noted if one.digest not in there)]))
    for point in store.points(name):
        if point.hash in new:
            _settle(store, paths, point, new[point.hash], now)


@dataclass(frozen=True)
class _Noted:
    """What a point of a collected sweep is known by."""

    digest: str
    name: str
    overrides: Mapping[str, Scalar]


def _known(store: Store, name: str) -> list[PointRow]:
    return store.points(name) if name in store.sweep_names() else []


def _digest(path: Path) -> str:
    """A run's identity is its folder."""
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()


def points_of(noted: Sequence[_Noted]) -> list[Point]:
    """A point for each run, in order, with what differs between them as parameters."""
    keys = dict.fromkeys(key for one in noted for key in one.overrides)
    varying = [key for key in keys if len({repr(one.overrides.get(key)) for one in noted}) > 1]
    points, names = [], set[str]()
    for index, one in enumerate(noted):
        name = one.name if one.name not in names else f"{one.name[:52]}-{point_id(one.digest)}"
        names.add(name)
        parameters = {key: one.overrides[key] for key in varying if key in one.overrides}
        overrides = tuple(assignment(key, value) for key, value in one.overrides.items())
        points.append(Point(point_id(one.digest), index, name, parameters, {}, overrides, {}, one.digest))
    return points


def noted_overrides(folder: Path) -> dict[str, Scalar]:
    """How a run was started, as far as it left word: Hydra's overrides, or those of our attempt; empty without one."""
    words: list[object] = []
    for name, read in ((HYDRA_OVERRIDES, yaml.safe_load), (records.ATTEMPT, json.loads)):
        try:
            with (folder / name).open("rb") as file:
                found = read(file.read(_MAX_NOTE).decode("utf-8", "replace"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        words = found.get("overrides", []) if isinstance(found, dict) else found
        break
    return dict(_read([word for word in words if isinstance(word, str)] if isinstance(words, list) else []))


def _read(overrides: Iterable[str]) -> Iterator[tuple[str, Scalar]]:
    for text in overrides:
        if "=" in text:
            yield override_key(text), _value(text.partition("=")[2])


def _value(text: str) -> Scalar:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, str | int | float | None) else text


def _settle(store: Store, paths: RootPaths, point: PointRow, run: ForeignRun, now: float) -> None:
    """From wherever an earlier import stopped to a judged attempt and a settled point."""
    folder = paths.attempt(point.sweep, point.id, 1)
    _link(folder.dir, run.path.resolve())
    if point.state is PointState.PLANNED:
        store.move_point(point, PointState.READY)
        point = _now(store, point)
    if point.state is PointState.READY:
        store.start_attempt(point, new_attempt(point, 1, Ask(run.pool), now))
        point = _now(store, point)
    if point.state is not PointState.ACTIVE:
        return
    attempt: AttemptRow | None = store.view(point.sweep).history(point)[-1]
    if attempt and attempt.state is AttemptState.CREATED:
        attempt = store.move_attempt(attempt, AttemptState.ENDED, f"collected from {run.path}")
    if attempt and attempt.state is AttemptState.ENDED:
        columns = collected_columns(attempt, run.evidence, folder)
        attempt = store.move_attempt(attempt, AttemptState.COLLECTED, **columns)
    if attempt and attempt.state is AttemptState.COLLECTED:
        found = judge_attempt(store, [attempt])
        attempt = store.move_attempt(attempt, AttemptState.JUDGED, found.sentence, **found.columns())
    if attempt and attempt.state is AttemptState.JUDGED:
        succeeded = attempt.verdict is Verdict.COMPLETED
        store.move_point(point, PointState.SUCCEEDED if succeeded else PointState.FAILED, attempt.reason)


def _now(store: Store, point: PointRow) -> PointRow:
    return next(row for row in store.points(point.sweep) if row.id == point.id)


def _link(link: Path, run: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if link.is_symlink() and link.readlink() == run:
        return
    if link.exists() or link.is_symlink():
        raise UsageError(f"{link} is in the way of a link to {run}")
    link.symlink_to(run, target_is_directory=True)
