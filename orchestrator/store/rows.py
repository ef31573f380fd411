"""Results of the database as rows of the ledger."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy.engine import RowMapping

from orchestrator.ledger import AttemptRow, EventRow, Measured, Measurement, PointRow, SweepRow
from orchestrator.model import Anomaly, AttemptState, Estimate, Forecast, PointState, Prediction, Verdict


def sweep_row(row: RowMapping) -> SweepRow:
    return SweepRow(**row)


def point_row(row: RowMapping) -> PointRow:
    plain = {"overrides": tuple(row["overrides"]), "state": PointState(row["state"])}
    return PointRow(**{**row, **plain, "predicted": prediction(row["predicted"])})


def attempt_row(row: RowMapping) -> AttemptRow:
    return AttemptRow(
        **{
            **row,
            "state": AttemptState(row["state"]),
            "verdict": Verdict(row["verdict"]) if row["verdict"] else None,
            "facts": tuple(row["facts"] or ()),
            "anomalies": tuple(Anomaly(**item) for item in row["anomalies"] or ()),
            "patch": dict(row["patch"] or {}),
            "exclude_nodes": tuple(row["exclude_nodes"] or ()),
            "measured": measured(row["measured"]),
        }
    )


def measurement(row: RowMapping) -> Measurement | None:
    """None where nothing was expected or seen, or where a patch made it another configuration."""
    predicted, seen = prediction(row["predicted"]), measured(row["measured"])
    if predicted is None or seen is None or row["patch"]:
        return None
    known = row["started_at"] is not None and row["ended_at"] is not None
    return Measurement(predicted, row["pool"], row["ended_at"] - row["started_at"] if known else None, seen)


def measured(plain: Mapping[str, Any] | None) -> Measured | None:
    return Measured(**plain) if plain else None


def prediction_text(predicted: Prediction | None) -> str | None:
    return json.dumps(dataclasses.asdict(predicted), sort_keys=True) if predicted else None


@lru_cache(maxsize=4096)
def prediction(text: str | None) -> Prediction | None:
    """The inverse of `prediction_text`."""
    if not text:
        return None
    plain = json.loads(text)
    by_pool = {
        name: {pool: _forecast(forecast) for pool, forecast in plain[name].items()} for name in ("formula", "on")
    }
    return Prediction(**{**plain, **by_pool})


def _forecast(plain: Mapping[str, Any]) -> Forecast:
    known: dict[str, Any] = {
        name: Estimate(**value) if isinstance(value, dict) else value for name, value in plain.items()
    }
    return Forecast(**known)


def event_row(row: RowMapping) -> EventRow:
    return EventRow(**row)
