"""Trials as the store keeps them, and which of them are good: the best one, the front, its knee. Pure; no Optuna."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from orchestrator.model import Scalar
from orchestrator.search.spec import Direction

FITS = "fits"
"""Constraint of every trial: 1 where the job's memory did not fit anywhere or `exclude` holds, else 0."""


class TrialState(StrEnum):
    OPEN = "open"
    """Its point has not settled, or its reference has not."""
    COMPLETE = "complete"
    INFEASIBLE = "infeasible"
    """It breaks a constraint, or its memory did not fit."""
    FAILED = "failed"
    PRUNED = "pruned"


@dataclass(frozen=True)
class TrialRow:
    """One trial of a sweep's search; `number` is Optuna's."""

    sweep: str
    number: int
    point: str | None
    """Several trials may have one point; None: `exclude` holds for the trial."""
    params: Mapping[str, Scalar]
    asked_at: float
    state: TrialState = TrialState.OPEN
    values: tuple[float, ...] | None = None
    """Of the objectives, in the sweep file's order. None: unknown."""
    constraints: Mapping[str, float] = field(default_factory=dict)
    """Above zero: broken by so much."""
    reason: str | None = None
    pruned_at: int | None = None
    """The step after which the end of its job was asked for."""
    saved_s: float | None = None
    """Seconds that the job would have gone on for, by its own pace."""
    told_at: float | None = None

    def settled(self, told: Told, now: float) -> TrialRow:
        """The same trial with what came of it."""
        return replace(
            self,
            state=told.state,
            values=told.values,
            constraints=told.constraints,
            reason=told.reason,
            saved_s=told.saved_s,
            told_at=now,
        )


@dataclass(frozen=True)
class Told:
    """What came of a trial."""

    state: TrialState
    values: tuple[float, ...] | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None
    pool: str | None = None
    """Where the attempt that decided ran."""
    saved_s: float | None = None


EXCLUDED = Told(TrialState.INFEASIBLE, constraints={FITS: 1.0}, reason="excluded")
"""Of a trial whose parameters the sweep file excludes: nothing runs."""


def best(rows: Sequence[TrialRow], directions: Sequence[Direction]) -> TrialRow | None:
    """The complete trial with the best first objective; of equals the earliest."""
    return min(_complete(rows), key=lambda row: (_losses(row, directions)[0], row.number), default=None)


def front(rows: Sequence[TrialRow], directions: Sequence[Direction]) -> list[TrialRow]:
    """The complete trials that no other is better than in one objective and as good in all; by the first objective.

    Of several trials of one point the earliest stands for all.
    """
    seen: dict[str | None, TrialRow] = {}
    for row in sorted(_complete(rows), key=lambda row: row.number):
        seen.setdefault(row.point, row)
    found = list(seen.values())
    losses = {row.number: _losses(row, directions) for row in found}

    def beaten(row: TrialRow) -> bool:
        mine = losses[row.number]
        return any(
            all(a <= b for a, b in zip(losses[other.number], mine, strict=True)) and losses[other.number] != mine
            for other in found
        )

    return sorted((row for row in found if not beaten(row)), key=lambda row: (losses[row.number], row.number))


def knee(front_rows: Sequence[TrialRow], directions: Sequence[Direction]) -> TrialRow | None:
    """The trial of the front that is nearest to the best of every objective, each scaled to its range over the front.

    None where the front has fewer than three trials: nothing lies between its ends.
    """
    if len(front_rows) < 3 or len(directions) < 2:
        return None
    losses = [_losses(row, directions) for row in front_rows]
    low = [min(column) for column in zip(*losses, strict=True)]
    span = [max(column) - least or 1.0 for column, least in zip(zip(*losses, strict=True), low, strict=True)]

    def distance(row: TrialRow) -> float:
        parts = zip(_losses(row, directions), low, span, strict=True)
        return math.sqrt(sum(((loss - least) / width) ** 2 for loss, least, width in parts))

    return min(front_rows, key=lambda row: (distance(row), row.number))


def _complete(rows: Sequence[TrialRow]) -> list[TrialRow]:
    return [row for row in rows if row.state is TrialState.COMPLETE and row.values is not None]


def _losses(row: TrialRow, directions: Sequence[Direction]) -> tuple[float, ...]:
    """Smaller is better."""
    assert row.values is not None
    pairs = zip(row.values, directions, strict=True)
    return tuple(value if direction == "minimize" else -value for value, direction in pairs)
