"""Results of the database as rows of the ledger."""

from __future__ import annotations

from sqlalchemy.engine import RowMapping

from orchestrator.ledger import AttemptRow, EventRow, PointRow, SweepRow
from orchestrator.model import Anomaly, AttemptState, PointState, Verdict


def sweep_row(row: RowMapping) -> SweepRow:
    return SweepRow(**row)


def point_row(row: RowMapping) -> PointRow:
    return PointRow(**{**row, "overrides": tuple(row["overrides"]), "state": PointState(row["state"])})


def attempt_row(row: RowMapping) -> AttemptRow:
    return AttemptRow(
        **{
            **row,
            "state": AttemptState(row["state"]),
            "verdict": Verdict(row["verdict"]) if row["verdict"] else None,
            "facts": tuple(row["facts"] or ()),
            "anomalies": tuple(Anomaly(**item) for item in row["anomalies"] or ()),
        }
    )


def event_row(row: RowMapping) -> EventRow:
    return EventRow(**row)
