"""The store: short transactions, guarded updates, one event row for every change of state.

A change of state is `UPDATE ... WHERE state = expected`; no row updated means that somebody else moved it first, and
the caller drops its result. No method here does anything but talk to the database, so no transaction waits for other I/O.

SQLite runs in WAL mode with synchronous=FULL: a committed change survives the loss of power. Keep the file on a local
disk: SQLite's locks do not work on network file systems.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from orchestrator.clock import Clock
from orchestrator.errors import StoreError, UsageError
from orchestrator.ledger import AttemptRow, EventRow, Measurement, PointRow, SweepRow, View
from orchestrator.model import (
    ATTEMPT_TRANSITIONS,
    POINT_TRANSITIONS,
    AttemptState,
    Point,
    PointState,
    Prediction,
    Verdict,
)
from orchestrator.store.rows import attempt_row, event_row, measurement, point_row, prediction_text, sweep_row
from orchestrator.store.schema import SCHEMA_VERSION, attempts, events, meta, metadata, points, sweeps
from orchestrator.store.trials import TrialTables
from orchestrator.store.views import ViewCache

BUSY_TIMEOUT_S = 30

_ATTEMPT_COLUMNS = [column for column in attempts.c if column is not attempts.c.evidence]

# built once: they run at every tick, and building one costs as much as running it
_SWEEP: sa.BindParameter[str] = sa.bindparam("sweep")
_IDS: sa.BindParameter[Collection[str]] = sa.bindparam("ids", expanding=True)
_POINT_COLUMNS = [column for column in points.c if column is not points.c.config]
_POINTS = sa.select(*_POINT_COLUMNS).where(points.c.sweep == _SWEEP).order_by(points.c.index, points.c.id)
_POINTS_OF = _POINTS.where(points.c.id.in_(_IDS))
_ATTEMPTS = sa.select(*_ATTEMPT_COLUMNS).where(attempts.c.sweep == _SWEEP).order_by(attempts.c.point, attempts.c.n)
_ATTEMPTS_OF = _ATTEMPTS.where(attempts.c.point.in_(_IDS))
_EVENT = events.insert()


class Store(TrialTables):
    """All durable state of all sweeps under one root."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._writer = engine.execution_options(write=True)
        self._clock = clock
        self._views = ViewCache(self._points, self._attempts)

    @classmethod
    def open(cls, path: Path, clock: Clock, url: str | None = None) -> Store:
        """Open or create the database.

        Args:
            path: the SQLite file; its folder is created.
            clock: stamps the events.
            url: another SQLAlchemy URL (`ORCHESTRATOR_DB`); then `path` is not used.

        Raises:
            StoreError: the database cannot be opened, or another version of this program made it.
        """
        try:
            if url is None:
                path.parent.mkdir(parents=True, exist_ok=True)
            place = url or sa.URL.create("sqlite", database=str(path))  # a path in a URL's text may hold a `?`
            engine = sa.create_engine(place, connect_args={} if url else {"timeout": BUSY_TIMEOUT_S})
            if engine.dialect.name == "sqlite":
                _prepare_sqlite(engine)
            _create(engine)
            say_plainly(engine)  # from here on
        except (sa.exc.SQLAlchemyError, OSError) as error:
            where = engine_name(url) if url else str(path)
            raise StoreError(f"cannot open the database {where}: {getattr(error, 'orig', None) or error}") from error
        return cls(engine, clock)

    def close(self) -> None:
        self._engine.dispose()

    # ---- sweeps ----------------------------------------------------------------------------------------------------

    def put_sweep(self, sweep: SweepRow, sweep_points: Sequence[Point]) -> None:
        """Create a sweep, or bring a known one up to the sweep file.

        Points that are new are planned; points that the file no longer has are skipped unless they already ran; a point
        that is back is planned again. Nothing that ran is touched. The points of a search are those of its trials, which
        come with `put_trial`: none of them is skipped here.
        """
        with self._write() as db:
            values = dataclasses.asdict(sweep)
            known = db.execute(sa.select(sweeps.c.name).where(sweeps.c.name == sweep.name)).first()
            if known is None:
                db.execute(sweeps.insert().values(values))
                self._event(db, sweep.name, detail=f"created from {sweep.spec_path}")
            else:
                keep = {"created_at"}
                db.execute(
                    sweeps.update()
                    .where(sweeps.c.name == sweep.name)
                    .values({key: value for key, value in values.items() if key not in keep})
                )
                self._event(db, sweep.name, detail=f"started again from {sweep.spec_path}")
            self._begin_search(db, sweep.name)
            self._put_points(db, sweep.name, sweep_points, keep=bool(sweep.spec.get("search")))

    def _put_points(self, db: Connection, sweep: str, wanted: Sequence[Point], keep: bool = False) -> None:
        known = {row.id: row for row in self._points(db, sweep)}
        self._insert_points(db, sweep, [point for point in wanted if point.id not in known])
        for point in wanted:
            row = known.get(point.id)
            if row is None:
                continue
            db.execute(_point(sweep, point.id).values(_written_anew(row, point)))
            if row.state is PointState.SKIPPED:
                self._move_point(db, row, PointState.PLANNED, "in the sweep file again")
            elif row.state is PointState.BLOCKED:
                self._move_point(db, row, PointState.READY, "the sweep was started again")
        ids = {point.id for point in wanted}
        for row in known.values():
            if keep and row.state is PointState.BLOCKED:
                self._move_point(db, row, PointState.READY, "the sweep was started again")
            elif not keep and row.id not in ids and row.state in (PointState.PLANNED, PointState.READY):
                self._move_point(db, row, PointState.SKIPPED, "no longer in the sweep file")

    def _insert_points(self, db: Connection, sweep: str, new: Sequence[Point]) -> None:
        if new:
            db.execute(points.insert(), [_point_values(sweep, point) for point in new])

    def sweep_names(self) -> list[str]:
        """Newest first."""
        with self._engine.connect() as db:
            return list(db.scalars(sa.select(sweeps.c.name).order_by(sweeps.c.created_at.desc(), sweeps.c.name)))

    def sweep(self, name: str) -> SweepRow:
        with self._engine.connect() as db:
            row = db.execute(sa.select(sweeps).where(sweeps.c.name == name)).mappings().first()
        if row is None:
            known = self.sweep_names()
            raise UsageError(
                f"no sweep named {name!r}" + (f"; known: {', '.join(known)}" if known else " has run here yet")
            )
        return sweep_row(row)

    def put_patterns(self, name: str, triage: Mapping[str, Any]) -> None:
        """The patterns that the sweep's attempts are judged by from now on, in the form of the sweep file's `triage`."""
        with self._write() as db:
            spec = db.execute(sa.select(sweeps.c.spec).where(sweeps.c.name == name)).scalar_one()
            if spec.get("triage") != triage:
                db.execute(sweeps.update().where(sweeps.c.name == name).values(spec={**spec, "triage": dict(triage)}))

    def finish_sweep(self, name: str, finished_at: float, stop_reason: str | None) -> None:
        with self._write() as db:
            db.execute(
                sweeps.update().where(sweeps.c.name == name).values(finished_at=finished_at, stop_reason=stop_reason)
            )
            self._event(db, name, detail=stop_reason or "finished")

    def view(self, sweep: str) -> View:
        """Points and attempts, read in one transaction: what others write in between is not half seen."""
        with self._engine.connect() as db:
            if self._engine.dialect.name == "sqlite":
                return self._views.read(db, sweep)
            return View.of(self._points(db, sweep), self._attempts(db, sweep))

    # ---- points ----------------------------------------------------------------------------------------------------

    def points(self, sweep: str) -> list[PointRow]:
        """In the order of the sweep file."""
        with self._engine.connect() as db:
            return self._points(db, sweep)

    def _points(self, db: Connection, sweep: str, ids: Collection[str] | None = None) -> list[PointRow]:
        query, names = (_POINTS, {"sweep": sweep}) if ids is None else (_POINTS_OF, {"sweep": sweep, "ids": list(ids)})
        return [point_row(row) for row in db.execute(query, names).mappings()]

    def config(self, sweep: str, point_id: str) -> dict[str, Any]:
        """The resolved configuration of one point."""
        with self._engine.connect() as db:
            query = sa.select(points.c.config).where(points.c.sweep == sweep, points.c.id == point_id)
            return cast("dict[str, Any]", db.scalars(query).one())

    def move_point(
        self, point: PointRow, to: PointState, detail: str | None = None, not_before: float | None = None
    ) -> bool:
        """Guarded change of state; False when the point is no longer in the state that the caller saw.

        Args:
            not_before: it waits at least until then.
        """
        with self._write() as db:
            return self._move_point(db, point, to, detail, not_before)

    def _move_point(
        self, db: Connection, point: PointRow, to: PointState, detail: str | None, not_before: float | None = None
    ) -> bool:
        if to not in POINT_TRANSITIONS[point.state]:
            raise AssertionError(f"illegal transition of point {point.id}: {point.state} -> {to}")
        done = db.execute(
            _point(point.sweep, point.id)
            .where(points.c.state == point.state.value)
            .values(state=to.value, reason=detail, unlogged=True, not_before=not_before)
        )
        if done.rowcount == 0:
            return False
        self._event(db, point.sweep, point.id, from_state=point.state, to_state=to, detail=detail)
        return True

    def rerun(self, point: PointRow) -> bool:
        """A settled point starts afresh: what was tried stays on record and is charged to no budget any more."""
        with self._write() as db:
            if not self._move_point(db, point, PointState.READY, "rerun"):
                return False
            mine = (attempts.c.sweep == point.sweep, attempts.c.point == point.id)
            db.execute(attempts.update().where(*mine).values(superseded=True))
            self._reopen_trials(db, point.sweep, point.id)
            db.execute(sweeps.update().where(sweeps.c.name == point.sweep).values(finished_at=None, stop_reason=None))
            return True

    def mark_logged(self, point: PointRow) -> None:
        """The sinks hold the point as the caller saw it; one that changed its state since stays unlogged."""
        with self._write() as db:
            db.execute(_point(point.sweep, point.id).where(points.c.state == point.state.value).values(unlogged=False))
        self._views.touch(point.sweep, point.id)

    def mark_unlogged(self, sweep: str, point_id: str) -> None:
        """There is news of this point for the sinks."""
        with self._write() as db:
            db.execute(_point(sweep, point_id).values(unlogged=True))
        self._views.touch(sweep, point_id)

    # ---- attempts --------------------------------------------------------------------------------------------------

    def attempts(self, sweep: str) -> list[AttemptRow]:
        """Of all points of a sweep, by point and number."""
        with self._engine.connect() as db:
            return self._attempts(db, sweep)

    def _attempts(self, db: Connection, sweep: str, ids: Collection[str] | None = None) -> list[AttemptRow]:
        query, names = (
            (_ATTEMPTS, {"sweep": sweep}) if ids is None else (_ATTEMPTS_OF, {"sweep": sweep, "ids": list(ids)})
        )
        return [attempt_row(row) for row in db.execute(query, names).mappings()]

    def measurements(self) -> list[Measurement]:
        """Of all sweeps: what completed attempts were seen to take, with what their points were expected to."""
        taken = [attempts.c[name] for name in ("pool", "started_at", "ended_at", "measured", "patch")]
        same = (points.c.sweep == attempts.c.sweep) & (points.c.id == attempts.c.point)
        query = sa.select(points.c.predicted, *taken).join_from(attempts, points, same)
        query = query.where(attempts.c.verdict == Verdict.COMPLETED.value)
        with self._engine.connect() as db:
            rows = db.execute(query.order_by(attempts.c.ended_at)).mappings().all()
        return [found for row in rows if (found := measurement(row)) is not None]

    def start_attempt(self, point: PointRow, attempt: AttemptRow, why: str | None = None) -> bool:
        """ready -> active together with the attempt's row; False when somebody else started the point.

        Args:
            why: it runs on this pool and in this way, for the event.
        """
        with self._write() as db:
            if not self._move_point(db, point, PointState.ACTIVE, f"attempt {attempt.n}"):
                return False
            values = dataclasses.asdict(attempt)
            db.execute(attempts.insert().values({**values, "state": attempt.state.value, "facts": [], "anomalies": []}))
            detail = f"pool {attempt.pool or '-'}" + (f": {why}" if why else "")
            self._event(db, point.sweep, point.id, attempt.n, None, attempt.state, detail)
            return True

    def move_attempt(
        self, attempt: AttemptRow, to: AttemptState, detail: str | None = None, **values: Any
    ) -> AttemptRow | None:
        """Guarded change of state together with other columns; the new row, or None when somebody else moved it."""
        if to not in ATTEMPT_TRANSITIONS[attempt.state]:
            raise AssertionError(f"illegal transition of {attempt.job_name}: {attempt.state} -> {to}")
        with self._write() as db:
            done = db.execute(
                _attempt(attempt).where(attempts.c.state == attempt.state.value).values(state=to.value, **values)
            )
            if done.rowcount == 0:
                return None
            self._event(db, attempt.sweep, attempt.point, attempt.n, attempt.state, to, detail)
            row = db.execute(sa.select(*_ATTEMPT_COLUMNS).where(*_attempt_key(attempt))).mappings().one()
            return attempt_row(row)

    def rejudge(self, attempt: AttemptRow, detail: str, **values: Any) -> bool:
        """Another judgement of a judged attempt; False when somebody else judged it anew meanwhile.

        Events are only added: the one of the first judgement stays, and `detail` of the new one should name both. A failed
        point whose newest attempt this is takes the new reason over; the sinks get the point again.
        """
        judged, verdict = AttemptState.JUDGED.value, attempt.verdict
        with self._write() as db:
            same = (attempts.c.state == judged, attempts.c.verdict == (verdict.value if verdict else None))
            if db.execute(_attempt(attempt).where(*same).values(**values)).rowcount == 0:
                return False
            self._event(db, attempt.sweep, attempt.point, attempt.n, judged, judged, detail)
            mine = (attempts.c.sweep == attempt.sweep, attempts.c.point == attempt.point)
            newest = db.scalar(sa.select(sa.func.max(attempts.c.n)).where(*mine)) == attempt.n
            failed = _point(attempt.sweep, attempt.point).where(points.c.state == PointState.FAILED.value)
            if newest:
                db.execute(failed.values(reason=values["reason"]))
            db.execute(_point(attempt.sweep, attempt.point).values(unlogged=True))
            return True

    def evidence(self, attempt: AttemptRow) -> str | None:
        """The evidence of a collected attempt, as `orchestrator.triage.evidence_json` wrote it."""
        with self._engine.connect() as db:
            return cast("str | None", db.scalar(sa.select(attempts.c.evidence).where(*_attempt_key(attempt))))

    def cancel_sweep(self, sweep: str) -> None:
        """Cancel what waits and ask for the end of what is active: one transaction, so that nothing starts in between.

        Of an active point the newest attempt is marked in whatever state it is: a failure that is about to be judged
        must not be tried again.
        """
        with self._write() as db:
            self._end_search(db, sweep)
            for point in self._points(db, sweep):
                if point.state in (PointState.PLANNED, PointState.READY):
                    self._move_point(db, point, PointState.CANCELLED, "cancelled before it started")
                elif point.state is PointState.ACTIVE:
                    self._request_cancel(db, point)

    def _request_cancel(self, db: Connection, point: PointRow) -> None:
        mine = (attempts.c.sweep == point.sweep, attempts.c.point == point.id)
        newest = db.scalar(sa.select(sa.func.max(attempts.c.n)).where(*mine))
        asked = attempts.update().where(*mine, attempts.c.n == newest, ~attempts.c.cancel_requested)
        if db.execute(asked.values(cancel_requested=True)).rowcount:
            self._event(db, point.sweep, point.id, newest, detail="cancel requested")

    # ---- events ----------------------------------------------------------------------------------------------------

    def events(self, sweep: str, after: int = 0) -> list[EventRow]:
        query = sa.select(events).where(events.c.sweep == sweep, events.c.id > after).order_by(events.c.id)
        with self._engine.connect() as db:
            return [event_row(row) for row in db.execute(query).mappings()]

    def note(self, sweep: str, detail: str, point: str | None = None, attempt: int | None = None) -> None:
        """An event that changes no state."""
        with self._write() as db:
            self._event(db, sweep, point, attempt, detail=detail)

    def note_all(self, said: Iterable[tuple[AttemptRow, str]]) -> None:
        """One event for each of these attempts, in one transaction."""
        with self._write() as db:
            for attempt, detail in said:
                self._event(db, attempt.sweep, attempt.point, attempt.n, detail=detail)

    def _event(
        self,
        db: Connection,
        sweep: str,
        point: str | None = None,
        attempt: int | None = None,
        from_state: str | None = None,
        to_state: str | None = None,
        detail: str | None = None,
    ) -> None:
        row = {"sweep": sweep, "point": point, "attempt": attempt, "from_state": from_state, "to_state": to_state}
        db.execute(_EVENT, {**row, "time": self._clock.now(), "detail": detail})

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._writer.begin() as db:
            yield db


def engine_name(url: str) -> str:
    """The URL without its password, for messages."""
    return sa.engine.make_url(url).render_as_string(hide_password=True)


def _prepare_sqlite(engine: Engine) -> None:
    """WAL, full durability, foreign keys, and write transactions that take the lock when they begin."""

    @sa.event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is deferred, and an upgrade of it may fail as busy
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={BUSY_TIMEOUT_S * 1000}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def say_plainly(engine: Engine) -> None:
    """A full disk, a lock that nobody gives back, a lost server: the user's to read, from whatever statement."""

    place = engine.url.database if engine.dialect.name == "sqlite" else engine.url.render_as_string(hide_password=True)

    @sa.event.listens_for(engine, "handle_error")
    def _raise(context: sa.engine.ExceptionContext) -> None:
        error = context.sqlalchemy_exception
        if isinstance(error, sa.exc.OperationalError) or type(error) is sa.exc.DatabaseError:
            raise StoreError(f"the database {place} does not serve: {error.orig}") from context.original_exception


def _create(engine: Engine) -> None:
    with engine.execution_options(write=True).begin() as db:
        metadata.create_all(db)
        if schema_of(db) is None:
            db.execute(meta.insert().values(key="schema", value=SCHEMA_VERSION))
        check_schema(db)


def schema_of(db: Connection) -> str | None:
    return cast("str | None", db.scalar(sa.select(meta.c.value).where(meta.c.key == "schema")))


def check_schema(db: Connection) -> None:
    """Raises: StoreError: another version of this program made the database."""
    if (found := schema_of(db)) != SCHEMA_VERSION:
        raise StoreError(
            f"the database is of schema version {found}, this program reads {SCHEMA_VERSION}; use another --root"
        )


def _point(sweep: str, point_id: str) -> sa.Update:
    return points.update().where(points.c.sweep == sweep, points.c.id == point_id)


def _attempt_key(attempt: AttemptRow) -> Iterable[sa.ColumnElement[bool]]:
    return (attempts.c.sweep == attempt.sweep, attempts.c.point == attempt.point, attempts.c.n == attempt.n)


def _attempt(attempt: AttemptRow) -> sa.Update:
    return attempts.update().where(*_attempt_key(attempt))


def _written_anew(row: PointRow, point: Point) -> Mapping[str, Any]:
    """What the sweep file says of a known point now: its labels, and what it will run where it did not run yet."""
    labels = {
        "index": point.index,
        "name": point.name,
        "parameters": point.parameters,
        "replicate": point.replicate,
    }
    if row.state in (PointState.PLANNED, PointState.READY, PointState.SKIPPED, PointState.BLOCKED):
        anew: dict[str, Any] = {"overrides": list(point.overrides), "config": point.config}
        if point.predicted and not (row.predicted and _says_as_much(row.predicted, point.predicted)):
            anew["predicted"] = prediction_text(point.predicted)
        return {**labels, **anew}
    return labels


def _says_as_much(one: Prediction, other: Prediction) -> bool:
    """What was expected first stays on record: another measurement since is no reason to expect it always."""
    return one.formula == other.formula and one.kind == other.kind


def _point_values(sweep: str, point: Point) -> Mapping[str, Any]:
    return {
        "sweep": sweep,
        "id": point.id,
        "index": point.index,
        "name": point.name,
        "parameters": point.parameters,
        "replicate": point.replicate,
        "overrides": list(point.overrides),
        "config": point.config,
        "hash": point.hash,
        "predicted": prediction_text(point.predicted),
        "state": PointState.PLANNED.value,
        "unlogged": True,
    }
