"""What to do next: `plan(view, limits)` compares what is wanted with what is known and returns actions. Pure.

The loop applies them and asks again. Nothing remembers what was going on before a crash: the states in the store say it
all, so the first plan after a restart continues where the last one stopped.

==============================  =======================================
state                           action
==============================  =======================================
point planned                   `Ready`
point ready, a slot is free     `Start`, if the budget covers its worst case
point that never can start      `Block`
attempt created                 `Submit`, once the backend may have room
attempt submitting, uncertain   `Recover`: look the job up, adopt or submit
attempt submitted .. running    `Poll`, and `Cancel` where it was asked for
attempt ended                   `Collect`
attempt collected               `Judge`
attempt judged, point active    `Settle`
point changed                   `Log`
==============================  =======================================
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.budget import spent, worst_seconds
from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import AttemptState, PointState, Pool, Verdict
from orchestrator.placement import Lessons, Placement, place, sharpened


@dataclass(frozen=True)
class Ready:
    point: PointRow


@dataclass(frozen=True)
class Start:
    point: PointRow
    history: tuple[AttemptRow, ...]
    where: Placement


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
    time_limit_s: float | None = None
    """Of one attempt: its worst case for the budget."""
    same_error_stops_sweep: int = 3
    """Different points with one fingerprint, before any success; 0 switches it off."""
    ladder: tuple[Pool, ...] = ()
    """From small to large."""
    choose_pool: bool = True
    """The prediction may skip pools."""


def plan(view: View, limits: Limits, now: float) -> list[Action]:
    """The actions of one tick, in the order in which they should be applied."""
    actions: list[Action] = []
    polled: list[AttemptRow] = []
    for point in view.points:
        actions += _advance(point, view.history(point), polled, now)
    if polled:
        actions.append(Poll(tuple(polled)))
    waiting = [point for point in view.points if point.state in _WAITING]
    if stop := _same_error(view, limits.same_error_stops_sweep):
        actions += [Block(point, stop) for point in waiting]
    elif waiting:
        actions += _start(view, waiting, limits, now)
    actions += [Log(point, view.history(point)) for point in view.points if point.unlogged and view.history(point)]
    return actions


_WAITING = (PointState.PLANNED, PointState.READY)


def _advance(point: PointRow, history: tuple[AttemptRow, ...], polled: list[AttemptRow], now: float) -> list[Action]:
    """The next action for a point's newest attempt; attempts to poll are collected for one call."""
    if point.state is not PointState.ACTIVE or not history:
        return []
    attempt = history[-1]
    match attempt.state:
        case AttemptState.CREATED:
            due = attempt.cancel_requested or now >= (attempt.not_before or now)
            return [Submit(point, attempt)] if due else []
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


def _start(view: View, waiting: Sequence[PointRow], limits: Limits, now: float) -> list[Action]:
    """Starts for the free slots, as far as the budget covers their worst case; what it can never cover is blocked."""
    actions: list[Action] = []
    lessons = Lessons.of(view)
    slots = limits.max_parallel - sum(point.state is PointState.ACTIVE for point in view.points)
    money = spent(view, limits.gpus_per_attempt, limits.time_limit_s, now)
    budget = math.inf if limits.gpu_hours is None else limits.gpu_hours
    ahead = money.ahead
    for point in waiting:
        where = place(point, limits.ladder, lessons, by_prediction=limits.choose_pool)
        worst = (worst_seconds(point, where.pool, limits.time_limit_s) or 0.0) * limits.gpus_per_attempt / 3600
        if money.used >= budget or money.used + worst > budget + _ROUNDING:
            actions.append(Block(point, _over_budget(budget, money.used, worst)))
        elif point.state is PointState.PLANNED:
            actions.append(Ready(point))
        elif slots > 0 and now >= (point.not_before or now) and money.used + ahead + worst <= budget + _ROUNDING:
            now_known = sharpened(point, view, limits.ladder)
            where = place(now_known, limits.ladder, lessons, by_prediction=limits.choose_pool)
            actions.append(Start(point, view.history(point), where))
            slots, ahead = slots - 1, ahead + worst
    return actions


_ROUNDING = 1e-9


def _over_budget(budget: float, used: float, worst: float) -> str:
    if used >= budget:
        return f"the budget of {budget:g} GPU-hours is used up ({used:.1f})"
    return f"of the budget of {budget:g} GPU-hours {budget - used:.1f} are left, and an attempt may take {worst:.1f}"


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
