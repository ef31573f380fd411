"""What to do next: `plan(view, limits)` compares what is wanted with what is known and returns actions. Pure.

The loop applies them and asks again. Nothing remembers what was going on before a crash: the states in the store say it
all, so the first plan after a restart continues where the last one stopped.

==============================  =======================================
state                           action
==============================  =======================================
point planned                   `Ready`
point ready, a slot is free     `Start`
attempt created                 `Submit`
attempt submitting, uncertain   `Recover`: look the job up, adopt or submit
attempt submitted .. running    `Poll`, and `Cancel` where it was asked for
attempt ended                   `Collect`
attempt collected               `Judge`
attempt judged, point active    `Settle`
point changed                   `Log`
==============================  =======================================
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import AttemptState, PointState, Verdict


@dataclass(frozen=True)
class Ready:
    point: PointRow


@dataclass(frozen=True)
class Start:
    point: PointRow
    history: tuple[AttemptRow, ...]


@dataclass(frozen=True)
class Submit:
    point: PointRow
    attempt: AttemptRow


@dataclass(frozen=True)
class Recover:
    attempt: AttemptRow


@dataclass(frozen=True)
class Poll:
    attempts: tuple[AttemptRow, ...]


@dataclass(frozen=True)
class Cancel:
    attempt: AttemptRow


@dataclass(frozen=True)
class Collect:
    attempt: AttemptRow


@dataclass(frozen=True)
class Judge:
    history: tuple[AttemptRow, ...]


@dataclass(frozen=True)
class Settle:
    point: PointRow
    history: tuple[AttemptRow, ...]


@dataclass(frozen=True)
class Block:
    """The sweep stops: this point will not start."""

    point: PointRow
    reason: str


@dataclass(frozen=True)
class Log:
    point: PointRow
    history: tuple[AttemptRow, ...]


Action = Ready | Start | Submit | Recover | Poll | Cancel | Collect | Judge | Settle | Block | Log


@dataclass(frozen=True)
class Limits:
    max_parallel: int
    gpus_per_attempt: int = 0
    gpu_hours: float | None = None
    same_error_stops_sweep: int = 3
    """Different points with one fingerprint, before any success; 0 switches it off."""


def plan(view: View, limits: Limits, now: float) -> list[Action]:
    """The actions of one tick, in the order in which they should be applied."""
    actions: list[Action] = []
    polled: list[AttemptRow] = []
    for point in view.points:
        actions += _advance(point, view.history(point), polled)
    if polled:
        actions.append(Poll(tuple(polled)))
    stop = stop_reason(view, limits, now)
    actions += [Block(point, stop) for point in view.points if stop and point.state in _WAITING]
    if not stop:
        actions += _start(view, limits)
    actions += [Log(point, view.history(point)) for point in view.points if point.unlogged and view.history(point)]
    return actions


_WAITING = (PointState.PLANNED, PointState.READY)


def _advance(point: PointRow, history: tuple[AttemptRow, ...], polled: list[AttemptRow]) -> list[Action]:
    """The next action for a point's newest attempt; attempts to poll are collected for one call."""
    if point.state is not PointState.ACTIVE or not history:
        return []
    attempt = history[-1]
    match attempt.state:
        case AttemptState.CREATED:
            return [Submit(point, attempt)]
        case AttemptState.SUBMITTING | AttemptState.UNCERTAIN:
            return [Recover(attempt)]
        case AttemptState.SUBMITTED | AttemptState.QUEUED | AttemptState.RUNNING:
            polled.append(attempt)
            return [Cancel(attempt)] if attempt.cancel_requested else []
        case AttemptState.ENDED:
            return [Collect(attempt)]
        case AttemptState.COLLECTED:
            return [Judge(history)]
        case AttemptState.JUDGED:
            return [Settle(point, history)]


def _start(view: View, limits: Limits) -> list[Action]:
    active = sum(point.state is PointState.ACTIVE for point in view.points)
    actions: list[Action] = [Ready(point) for point in view.points if point.state is PointState.PLANNED]
    ready = [point for point in view.points if point.state is PointState.READY]
    actions += [Start(point, view.history(point)) for point in ready[: max(0, limits.max_parallel - active)]]
    return actions


def stop_reason(view: View, limits: Limits, now: float) -> str | None:
    """Why no further point may start, or None."""
    if limits.gpu_hours is not None:
        used = gpu_hours(view, limits.gpus_per_attempt, now)
        if used >= limits.gpu_hours:
            return f"the budget of {limits.gpu_hours:g} GPU-hours is used up ({used:.1f})"
    return _same_error(view, limits.same_error_stops_sweep)


def gpu_hours(view: View, gpus_per_attempt: int, now: float) -> float:
    """GPU-hours of all attempts so far; one that still runs counts up to now."""
    seconds = sum(
        (attempt.ended_at or now) - attempt.started_at
        for history in view.attempts.values()
        for attempt in history
        if attempt.started_at is not None
    )
    return seconds * gpus_per_attempt / 3600


def _same_error(view: View, limit: int) -> str | None:
    if limit <= 0 or any(point.state is PointState.SUCCEEDED for point in view.points):
        return None
    points_by_fingerprint: dict[str, set[str]] = defaultdict(set)
    for history in view.attempts.values():
        for attempt in history:
            if (
                not attempt.superseded
                and attempt.fingerprint
                and attempt.verdict in (Verdict.CODE_ERROR, Verdict.CONFIG_ERROR)
            ):
                points_by_fingerprint[attempt.fingerprint].add(attempt.point)
                if len(points_by_fingerprint[attempt.fingerprint]) >= limit:
                    return f"{limit} points died of the same error before any succeeded: {attempt.reason}"
    return None
