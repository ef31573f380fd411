"""How far a sweep is, as plain numbers: pure, from the store's view and the signs of life of what runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.budget import Spent, spent
from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import AttemptState, Estimate, PointState
from orchestrator.pace import Pace, by_steps, less, together
from orchestrator.plan import Limits
from orchestrator.waiting import Waiting, waiting
from trainer_ext.records import Heartbeat


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    used: int
    """Now; of GPUs, on the one that has most in use."""
    peak: int
    """Of what was seen."""
    total: int | None = None
    """What there is."""


@dataclass(frozen=True)
class Pulse:
    """What a live attempt says of itself."""

    heartbeat: Heartbeat | None
    expected_steps: int | None
    step: int = 0
    """The last one among its metrics, which may be newer than the heartbeat."""
    loss: float | None = None
    gpu: Memory | None = None
    host: Memory | None = None


@dataclass(frozen=True)
class Running:
    """One line of what runs now."""

    name: str
    n: int
    pool: str | None
    state: str
    """The phase that its heartbeat names, else the attempt's state."""
    step: int
    expected_steps: int | None
    elapsed_s: float
    loss: float | None = None
    gpu: Memory | None = None
    host: Memory | None = None


@dataclass(frozen=True)
class Progress:
    total: int
    by_state: Mapping[PointState, int]
    running: tuple[Running, ...]
    left: Estimate | None
    """Seconds until all points are settled; None until there is something to go by."""
    waiting: tuple[Waiting, ...] = ()
    gpu_hours: Spent | None = None
    """None on machines without GPUs."""
    gpu_hours_limit: float | None = None
    stopped: str | None = None
    """Why no more points are started."""
    found: tuple[str, ...] = ()
    """How far a search is, and what is best so far: a line each."""

    @property
    def settled(self) -> int:
        return sum(count for state, count in self.by_state.items() if state.is_terminal)


def measure(
    view: View,
    pulses: Mapping[str, Pulse],
    now: float,
    limits: Limits,
    said: Mapping[str, str] | None = None,
    unasked: int = 0,
) -> Progress:
    """
    Args:
        pulses: by token of the live attempts.
        limits: those that the sweep is driven by.
        said: the scheduler's own reasons why an attempt waits, by its token.
        unasked: points that a search has yet to ask for, at most.
    """
    shown = [point for point in view.points if point.state is not PointState.SKIPPED]
    live = [
        (point, view.history(point)[-1])
        for point in shown
        if point.state is PointState.ACTIVE and any(map(_runs, view.history(point)[-1:]))
    ]
    running = [_running(point.name, attempt, pulses.get(attempt.token), now) for point, attempt in live]
    return Progress(
        total=len(shown),
        by_state=Counter(point.state for point in shown),
        running=tuple(running),
        left=_left(view, shown, live, running, pulses, limits, unasked),
        waiting=waiting(view, limits, now, said),
        gpu_hours=spent(view, limits.gpus_per_attempt, limits.time_limit_s, now) if limits.gpus_per_attempt else None,
        gpu_hours_limit=limits.gpu_hours,
        stopped=view.stopped,
    )


def _runs(attempt: AttemptRow) -> bool:
    return attempt.state is AttemptState.RUNNING


def _running(name: str, attempt: AttemptRow, pulse: Pulse | None, now: float) -> Running:
    heartbeat = pulse.heartbeat if pulse else None
    began = attempt.started_at or attempt.created_at
    return Running(
        name=name,
        n=attempt.n,
        pool=attempt.pool,
        state=heartbeat.phase if heartbeat else attempt.state.value,
        step=max(pulse.step if pulse else 0, (heartbeat.step or 0) if heartbeat else 0),
        expected_steps=pulse.expected_steps if pulse else None,
        elapsed_s=max(0.0, now - began),
        loss=pulse.loss if pulse else None,
        gpu=pulse.gpu if pulse else None,
        host=pulse.host if pulse else None,
    )


def _left(
    view: View,
    shown: list[PointRow],
    live: list[tuple[PointRow, AttemptRow]],
    running: list[Running],
    pulses: Mapping[str, Pulse],
    limits: Limits,
    unasked: int,
) -> Estimate | None:
    """Of what runs, by its own steps once two of them tell how long one takes; else by what such attempts take."""
    pace = Pace.of(view)
    promised: list[Estimate | None] = []
    for (point, attempt), line in zip(live, running, strict=True):
        heartbeat = pulses[attempt.token].heartbeat if attempt.token in pulses else None
        step_s = heartbeat.step_s if heartbeat else None
        own = by_steps(line.elapsed_s, line.step, line.expected_steps or 0, step_s) if line.expected_steps else None
        known = pace.seconds(point, attempt.pool)
        promised.append(own if own and step_s else less(known, line.elapsed_s) if known else own)
    rest = [point for point in shown if _will_run(point, view.history(point))]
    first = limits.ladder[0].name if limits.ladder else None
    ahead = [pace.seconds(point, _next_pool(view, point, first)) or _as_the_others(running, promised) for point in rest]
    if shown and unasked:  # their points are not known, but the newest is one of the same search
        ahead += [pace.seconds(shown[-1], first) or _as_the_others(running, promised)] * unasked
    known_only = [estimate for estimate in promised if estimate is not None]
    if None in ahead or (live and not known_only):
        return None
    return together(known_only, [estimate for estimate in ahead if estimate is not None], limits.max_parallel)


def _will_run(point: PointRow, history: Sequence[AttemptRow]) -> bool:
    if point.state is PointState.ACTIVE:
        return bool(history) and history[-1].state.is_live and not _runs(history[-1])
    return point.state in (PointState.PLANNED, PointState.READY)


def _next_pool(view: View, point: PointRow, first: str | None) -> str | None:
    history = view.history(point)
    return history[-1].pool if history else first


def _as_the_others(running: list[Running], promised: list[Estimate | None]) -> Estimate | None:
    """A whole attempt, as the longest of those promises that run."""
    whole = [
        Estimate(left.value + line.elapsed_s, left.low + line.elapsed_s, left.high + line.elapsed_s, "measured")
        for line, left in zip(running, promised, strict=True)
        if left is not None
    ]
    return max(whole, key=lambda estimate: estimate.value, default=None)
