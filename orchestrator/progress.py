"""How far a sweep is, as plain numbers: pure, from the store's view and the heartbeats of what runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.ledger import AttemptRow, View
from orchestrator.model import AttemptState, PointState
from trainer_ext.records import Heartbeat


@dataclass(frozen=True)
class Pulse:
    """What a live attempt says of itself."""

    heartbeat: Heartbeat | None
    expected_steps: int | None


@dataclass(frozen=True)
class Running:
    """One line of what runs now."""

    name: str
    n: int
    pool: str | None
    state: str
    """The attempt's state, or the phase that its heartbeat names."""
    step: int
    expected_steps: int | None
    elapsed_s: float


@dataclass(frozen=True)
class Progress:
    total: int
    by_state: Mapping[PointState, int]
    running: tuple[Running, ...]
    seconds_left: float | None
    """None until there is something to go by."""

    @property
    def settled(self) -> int:
        return sum(count for state, count in self.by_state.items() if state.is_terminal)


def measure(view: View, pulses: Mapping[str, Pulse], now: float, max_parallel: int) -> Progress:
    """Args: pulses by token of the live attempts; `max_parallel` points run at once."""
    shown = [point for point in view.points if point.state is not PointState.SKIPPED]
    running = []
    for point in shown:
        history = view.history(point)
        if point.state is PointState.ACTIVE and history and history[-1].state.is_live:
            running.append(_running(point.name, history[-1], pulses.get(history[-1].token), now))
    waiting = sum(point.state in (PointState.PLANNED, PointState.READY) for point in shown)
    return Progress(
        total=len(shown),
        by_state=Counter(point.state for point in shown),
        running=tuple(running),
        seconds_left=_seconds_left(_typical_seconds(view, running), running, waiting, max_parallel),
    )


def _running(name: str, attempt: AttemptRow, pulse: Pulse | None, now: float) -> Running:
    heartbeat = pulse.heartbeat if pulse else None
    began = attempt.started_at or attempt.created_at
    return Running(
        name=name,
        n=attempt.n,
        pool=attempt.pool,
        state=heartbeat.phase if heartbeat and attempt.state is AttemptState.RUNNING else attempt.state.value,
        step=(heartbeat.step or 0) if heartbeat else 0,
        expected_steps=pulse.expected_steps if pulse else None,
        elapsed_s=max(0.0, now - began),
    )


def _typical_seconds(view: View, running: list[Running]) -> float | None:
    """Of one attempt: the mean of those that ended, else what the steps of a running one promise."""
    ended = [
        attempt.ended_at - attempt.started_at
        for history in view.attempts.values()
        for attempt in history
        if attempt.ended_at is not None and attempt.started_at is not None
    ]
    if ended:
        return sum(ended) / len(ended)
    begun = [line for line in running if line.expected_steps and line.step]
    return max((line.elapsed_s * (line.expected_steps or 0) / line.step for line in begun), default=None)


def _seconds_left(typical: float | None, running: list[Running], waiting: int, max_parallel: int) -> float | None:
    if typical is None:
        return None
    work = sum(max(0.0, typical - line.elapsed_s) for line in running) + typical * waiting
    slots = max(1, min(max_parallel, len(running) + waiting))
    longest = max((max(0.0, typical - line.elapsed_s) for line in running), default=0.0)
    return max(work / slots, longest)
