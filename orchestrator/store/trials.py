"""The trials of searches in the store: which point each has, and what came of it."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, RowMapping

from orchestrator.clock import Clock
from orchestrator.ledger import PointRow
from orchestrator.model import Point
from orchestrator.search.results import Told, TrialRow, TrialState
from orchestrator.store.schema import ended_searches, points, trials


class TrialTables:
    """The part of `Store` that knows of trials."""

    _engine: Engine
    _clock: Clock

    def _write(self) -> AbstractContextManager[Connection]:
        raise NotImplementedError

    def _event(self, db: Connection, sweep: str, point: str | None = None, *, detail: str | None = None) -> None:
        raise NotImplementedError

    def _insert_points(self, db: Connection, sweep: str, new: list[Point]) -> None:
        raise NotImplementedError

    def _request_cancel(self, db: Connection, point: PointRow) -> None:
        raise NotImplementedError

    def trials(self, sweep: str, point: str | None = None) -> list[TrialRow]:
        """By number; of one point, or of all."""
        query = sa.select(trials).where(trials.c.sweep == sweep).order_by(trials.c.number)
        query = query if point is None else query.where(trials.c.point == point)
        with self._engine.connect() as db:
            return [_trial_row(row) for row in db.execute(query).mappings()]

    def put_trial(self, trial: TrialRow, point: Point | None) -> None:
        """Bind a trial to its point, which is planned unless it is known: one transaction. Again changes nothing."""
        with self._write() as db:
            if db.execute(sa.select(trials.c.number).where(*_same(trial))).first() is not None:
                return
            if point is not None:
                same = (points.c.sweep == trial.sweep, points.c.id == point.id)
                if db.execute(sa.select(points.c.id).where(*same)).first() is None:
                    self._insert_points(db, trial.sweep, [point])
            db.execute(trials.insert().values(**{**dataclasses.asdict(trial), "state": trial.state.value}))
            self._event(db, trial.sweep, trial.point, detail=f"trial {trial.number} asked for")

    def settle_trial(self, trial: TrialRow, told: Told) -> bool:
        """What came of an open trial; False where that is known already."""
        with self._write() as db:
            values = {
                "state": told.state.value,
                "values": told.values,
                "constraints": dict(told.constraints),
                "reason": told.reason,
                "saved_s": told.saved_s,
                "told_at": self._clock.now(),
            }
            is_open = trials.c.state == TrialState.OPEN.value
            if db.execute(trials.update().where(*_same(trial), is_open).values(**values)).rowcount == 0:
                return False
            detail = f"trial {trial.number}: {told.state.value}" + (f": {told.reason}" if told.reason else "")
            self._event(db, trial.sweep, trial.point, detail=detail)
            return True

    def prune_trial(self, trial: TrialRow, point: PointRow, step: int) -> bool:
        """Ask for the end of a trial's job, and remember why; False where that was done before."""
        with self._write() as db:
            unasked = trials.update().where(*_same(trial), trials.c.pruned_at.is_(None))
            if db.execute(unasked.values(pruned_at=step)).rowcount == 0:
                return False
            self._request_cancel(db, point)
            self._event(db, trial.sweep, point.id, detail=f"trial {trial.number} is pruned after step {step}")
            return True

    def search_ended(self, sweep: str) -> bool:
        """Whether it was cancelled since the sweep was last started."""
        with self._engine.connect() as db:
            query = sa.select(ended_searches.c.sweep).where(ended_searches.c.sweep == sweep)
            return db.execute(query).first() is not None

    def _end_search(self, db: Connection, sweep: str) -> None:
        self._begin_search(db, sweep)
        db.execute(ended_searches.insert().values(sweep=sweep))

    def _begin_search(self, db: Connection, sweep: str) -> None:
        db.execute(ended_searches.delete().where(ended_searches.c.sweep == sweep))

    def _reopen_trials(self, db: Connection, sweep: str, point_id: str) -> None:
        """The point runs again, so what came of its trials is open again."""
        mine = (trials.c.sweep == sweep, trials.c.point == point_id)
        nothing = dict.fromkeys(("values", "reason", "pruned_at", "saved_s", "told_at"))
        opened: dict[str, Any] = {"state": TrialState.OPEN.value, "constraints": {}, **nothing}
        db.execute(trials.update().where(*mine).values(**opened))


def _same(trial: TrialRow) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return (trials.c.sweep == trial.sweep, trials.c.number == trial.number)


def _trial_row(row: RowMapping) -> TrialRow:
    values = tuple(row["values"]) if row["values"] is not None else None
    return TrialRow(**{**row, "state": TrialState(row["state"]), "values": values})
