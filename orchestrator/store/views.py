"""A sweep read again and again: only what changed since the last time is read from the database.

Every change of a row but one comes with an event of its point in the same transaction, so the events since the last reading
name what to read. The one without, whether the sinks have seen a point, is this process's own, which says so by `touch`. This
holds where transactions commit in the order of their events: on SQLite, which has one writer at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.store.schema import events

Points = Callable[[Connection, str, Collection[str] | None], list[PointRow]]
Attempts = Callable[[Connection, str, Collection[str] | None], list[AttemptRow]]


@dataclass
class _Known:
    newest: int
    """Event up to which the rows are those of the database."""
    points: dict[str, PointRow]
    attempts: dict[str, tuple[AttemptRow, ...]]


@dataclass
class ViewCache:
    """Args: read_points, read_attempts: rows of a sweep; of these points, or of all."""

    read_points: Points
    read_attempts: Attempts
    _known: dict[str, _Known] = field(default_factory=dict)
    _touched: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def touch(self, sweep: str, point: str) -> None:
        """A row of this point changed without an event."""
        self._touched[sweep].add(point)

    def read(self, db: Connection, sweep: str) -> View:
        """The sweep as this transaction sees it."""
        known = self._known.get(sweep)
        query = sa.select(events.c.id, events.c.point).where(events.c.sweep == sweep)
        found = db.execute(query.where(events.c.id > known.newest) if known else query).all()
        changed = {point for _, point in found} | self._touched.pop(sweep, set())
        newest = max((event for event, _ in found), default=known.newest if known else 0)
        if known is None or None in changed:
            known = self._known[sweep] = _Known(newest, {}, {})
            self._take(known, db, sweep, None)
        elif changed:
            known.newest = newest
            self._take(known, db, sweep, {point for point in changed if point is not None})
        ordered = sorted(known.points.values(), key=lambda point: (point.index, point.id))
        return View(tuple(ordered), dict(known.attempts))

    def _take(self, known: _Known, db: Connection, sweep: str, ids: Collection[str] | None) -> None:
        known.points.update({point.id: point for point in self.read_points(db, sweep, ids)})
        known.attempts.update(View.of((), self.read_attempts(db, sweep, ids)).attempts)
