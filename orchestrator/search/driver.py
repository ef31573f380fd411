"""The search beside the loop: tells what settled, ends what is hopeless, asks for what may start.

The protocol, for each trial, where every arrow may be the last thing that this process does:

    journal: trial, parameters, point  ->  store: trial bound to its point, point planned  ->  the loop runs the point
    ->  store: what came of it  ->  journal: told

The left of a pair holds and the right follows from it: `begin` binds what the journal asked for and the store does not know,
and tells what the store knows and the journal does not. So no trial is forgotten and none is there twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.clock import Clock
from orchestrator.collect import metrics
from orchestrator.errors import UsageError
from orchestrator.expand import RawPoint
from orchestrator.job_section import job_section
from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import AttemptState, Point, PointState, Scalar
from orchestrator.paths import AttemptPaths, RootPaths
from orchestrator.search import outcome
from orchestrator.search.figures import parse_figure
from orchestrator.search.points import grid_trials, is_excluded, raw_point, search_of, trial_count
from orchestrator.search.reading import Facts, NoFigure, first_scores
from orchestrator.search.results import EXCLUDED, Told, TrialRow, TrialState
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.triage import evidence_json
from orchestrator.triage.evidence import Evidence

if TYPE_CHECKING:  # it imports Optuna
    from orchestrator.search.study import Asked, SearchStudy


class ReferencePending(Exception):
    """The reference of a point has not settled yet."""


@dataclass
class Search:
    """One search being driven by this process; call `begin` once, then `advance` at every tick."""

    spec: SweepSpec
    store: Store
    study: SearchStudy
    paths: RootPaths
    clock: Clock
    compose: Callable[[RawPoint], Point]
    predict: Callable[[Point], Point]
    gpus: int = 0
    """Of one attempt."""
    _rows: dict[int, TrialRow] = field(default_factory=dict)
    _ends: dict[str, int] = field(default_factory=dict)
    """Token of an attempt -> where its metrics were read to."""
    _seen: dict[str, dict[int, float]] = field(default_factory=dict)
    _steps: dict[str, int | None] = field(default_factory=dict)
    """By point."""

    def __post_init__(self) -> None:
        self.search = search_of(self.spec)
        self._grid = grid_trials(self.spec)
        self._count = trial_count(self.spec)

    def begin(self) -> None:
        """Bring journal and store to say the same, whatever step the last process died at."""
        self._load()
        self.study.require(self._rows)
        for asked in self.study.unbound(self._rows):
            point = None if asked.point is None else self._point(asked.number, asked.params)
            if point is not None and point.id != asked.point:
                raise UsageError(
                    f"trial {asked.number} of this search was asked for with another sweep file: its point was "
                    f"{asked.point} and is now {point.id}; put the file back, or search anew under another name"
                )
            self._put(asked, point)
        for row in self._rows.values():
            if row.state is not TrialState.OPEN:
                self.study.tell(row.number, Told(row.state, row.values, row.constraints, row.reason))

    def advance(self, view: View) -> View:
        """Tell, prune, and ask while there is room; returns what the store knows then."""
        while True:
            points = {point.id: point for point in view.points}
            if self._is_stale(view):
                self._load()
            self._tell(view, points)
            self._prune(view, points)
            if not self._may_ask(view):
                return view
            self._ask(view)
            view = self.store.view(self.spec.name)

    def pruned(self, point_id: str) -> str | None:
        """Why the point's job was asked to end, where the search did that."""
        rows = (row for row in self._rows.values() if row.point == point_id and row.pruned_at is not None)
        return next((f"pruned after step {row.pruned_at}" for row in rows), None)

    # ---- asking ----------------------------------------------------------------------------------------------------

    def _may_ask(self, view: View) -> bool:
        if len(self._rows) >= self._count or view.stopped is not None:
            return False
        unsettled = {point.id for point in view.points if not point.state.is_terminal}
        waiting = sum(row.state is TrialState.OPEN and row.point in unsettled for row in self._rows.values())
        # a trial that repeats a running point takes a place of its own: else all that are left would repeat it at once
        busy = max(len(unsettled), waiting)
        return busy < self.spec.budget.max_parallel and not self.store.search_ended(self.spec.name)

    def _ask(self, view: View) -> None:
        bound: list[Point] = []

        def bind(number: int, params: dict[str, Scalar]) -> str | None:
            if is_excluded(self.spec, params):
                return None
            bound.append(self._point(number, params, view))
            return bound[0].id

        asked = self.study.ask(bind)
        self._put(asked, bound[0] if bound else None)

    def _point(self, number: int, params: dict[str, Scalar], view: View | None = None) -> Point:
        known = (view or self.store.view(self.spec.name)).points
        return self.predict(self.compose(raw_point(self.spec, number, params, {point.name for point in known})))

    def _put(self, asked: Asked, point: Point | None) -> None:
        row = TrialRow(self.spec.name, asked.number, point.id if point else None, asked.params, self.clock.now())
        if point is None:
            row = row.settled(EXCLUDED, row.asked_at)
        self.store.put_trial(row, point)
        self._rows[row.number] = row

    # ---- telling ---------------------------------------------------------------------------------------------------

    def _tell(self, view: View, points: dict[str, PointRow]) -> None:
        for row in [row for row in self._rows.values() if row.state is TrialState.OPEN]:
            point = points.get(row.point or "")
            if point is None or not outcome.is_settled(point):
                continue
            try:
                told = self._outcome(row, point, view)
            except ReferencePending:
                continue
            self.store.settle_trial(row, told)
            self.study.tell(row.number, told)
            self._rows[row.number] = row.settled(told, self.clock.now())

    def _outcome(self, row: TrialRow, point: PointRow, view: View) -> Told:
        history = view.history(point)
        if point.state is not PointState.SUCCEEDED:
            first = all(other.point != row.point or other.number >= row.number for other in self._rows.values())
            steps = self._expected_steps(point) if point.state is PointState.PRUNED and first else None
            return outcome.of_unsuccessful(self.search, point, history, steps)
        facts = Facts(
            evidence=self._evidence(history[-1]),
            history=history,
            gpus=self.gpus if history[-1].pool else 0,
            folder=self._folder(history[-1]).dir,
            reference=lambda: self._reference(row, view),
        )
        return outcome.of_succeeded(self.search, facts)

    def _reference(self, row: TrialRow, view: View) -> Path:
        """The first score file of the point that differs in `search.reference` alone."""
        wanted = {**row.params, **self.search.reference}
        ids = [other.point for other in self._rows.values() if other.params == wanted]
        point = next((point for point in view.points if point.id in ids), None)
        if point is None and any(params == wanted for params in self._grid):
            raise ReferencePending
        if point is None:
            raise NoFigure(f"no point of the grid is its reference: {wanted}")
        if not outcome.is_settled(point):
            raise ReferencePending
        if point.state is not PointState.SUCCEEDED:
            raise NoFigure(f"its reference {point.name} {point.state.value}")
        last = view.history(point)[-1]
        return first_scores(self._folder(last).dir, self._evidence(last))

    # ---- pruning ---------------------------------------------------------------------------------------------------

    def _prune(self, view: View, points: dict[str, PointRow]) -> None:
        if self.search.prune is None:
            return
        for row in [row for row in self._rows.values() if row.state is TrialState.OPEN and row.pruned_at is None]:
            point = points.get(row.point or "")
            history = view.history(point) if point else ()
            if point is None or not history or history[-1].state is not AttemptState.RUNNING:
                continue
            series = self._series(history[-1])
            last = max(series, default=0)
            expected = self._expected_steps(point)
            if self.study.report(row.number, series) and (expected is None or last < expected):
                self.store.prune_trial(row, point, last)
                self._rows[row.number] = replace(row, pruned_at=last)

    def _series(self, attempt: AttemptRow) -> dict[int, float]:
        """The pruned metric by step, so far."""
        prune = self.search.prune
        name = parse_figure(prune.metric).name if prune and prune.metric else self.search.figures[0].name
        rows, end = metrics.read_new(self._folder(attempt).metrics, self._ends.get(attempt.token, 0))
        self._ends[attempt.token] = end
        known = self._seen.setdefault(attempt.token, {})
        known.update({row.step: row.data[name] for row in rows if name in row.data})
        return known

    # ---- reading ---------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        self._rows = {row.number: row for row in self.store.trials(self.spec.name)}

    def _is_stale(self, view: View) -> bool:
        """A settled trial's point runs again: somebody asked for a rerun."""
        running = {point.id for point in view.points if not point.state.is_terminal}
        unsettled = {row.point for row in self._rows.values() if row.state is TrialState.OPEN}
        return bool(running - unsettled)

    def _expected_steps(self, point: PointRow) -> int | None:
        """Read once: a configuration is large, and pruning asks at every tick."""
        if point.id not in self._steps:
            self._steps[point.id] = job_section(self.store.config(point.sweep, point.id), self.spec).expected_steps
        return self._steps[point.id]

    def _evidence(self, attempt: AttemptRow) -> Evidence:
        return evidence_json.loads(self.store.evidence(attempt) or "")

    def _folder(self, attempt: AttemptRow) -> AttemptPaths:
        return self.paths.attempt(attempt.sweep, attempt.point, attempt.n)
