"""Looks at a sweep again and again while whoever drives it writes: the store's rows, and what the attempts' folders say.

Nothing is written. Of files that grow, only what is new is read, and never more than a bounded part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.collect.attempt import read_record
from orchestrator.collect.metrics import parse_rows
from orchestrator.collect.tail import Tail
from orchestrator.ledger import AttemptRow, View
from orchestrator.model import AttemptState, Pool
from orchestrator.paths import AttemptPaths, RootPaths
from orchestrator.plan import Limits
from orchestrator.progress import Memory, Progress, Pulse, measure
from orchestrator.search.points import trial_count
from orchestrator.search.said import search_lines
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.waiting import WAITS
from trainer_ext.records import AttemptSpec, Heartbeat, MemorySample

LOSS = ("actor/loss", "actor/pg_loss", "train/loss", "loss")
"""Names of the figure that people watch; the first that a job writes counts."""


@dataclass
class Watcher:
    """One sweep under one root; remembers how far it has read."""

    sweep: str
    paths: RootPaths
    store: Store
    _signs: dict[str, _Signs] = field(default_factory=dict)
    _said: dict[tuple[str, int], str] = field(default_factory=dict)
    _event: int = 0

    def look(self, view: View, spec: SweepSpec, now: float) -> Progress:
        """How far the sweep is at this moment, as `view` has it."""
        live = [history[-1] for history in view.attempts.values() if history[-1].state.is_live]
        limits = limits_of(spec, view)
        pulses, reasons = self.pulses(live), self._reasons(live)
        if spec.search is None:
            return measure(view, pulses, now, limits, reasons)
        trials, names = self.store.trials(self.sweep), {point.id: point.name for point in view.points}
        goes_on = view.stopped is None and not self.store.search_ended(self.sweep)
        progress = measure(view, pulses, now, limits, reasons, goes_on * (trial_count(spec) - len(trials)))
        found = search_lines(spec, trials, names, limits.gpus_per_attempt)
        return replace(progress, found=tuple(found))

    def pulses(self, live: Iterable[AttemptRow]) -> dict[str, Pulse]:
        """Signs of life by token."""
        known, self._signs = self._signs, {}
        for attempt in live:
            if attempt.state is AttemptState.RUNNING:
                folder = self.paths.attempt(attempt.sweep, attempt.point, attempt.n)
                self._signs[attempt.token] = known.get(attempt.token) or _Signs(folder)
        return {token: signs.look() for token, signs in self._signs.items()}

    def _reasons(self, live: Iterable[AttemptRow]) -> Mapping[str, str]:
        """Why the scheduler lets an attempt wait, by token: its last word in the events."""
        for event in self.store.events(self.sweep, self._event):
            self._event, detail = event.id, event.detail or ""
            if event.point is None or event.attempt is None:
                continue
            if event.to_state == AttemptState.QUEUED.value:
                self._said[event.point, event.attempt] = detail
            elif event.to_state is None and detail.startswith(WAITS):
                self._said[event.point, event.attempt] = detail.removeprefix(WAITS)
        return {
            attempt.token: said
            for attempt in live
            if attempt.state is AttemptState.QUEUED and (said := self._said.get((attempt.point, attempt.n)))
        }


class _Signs:
    """What one running attempt has written so far."""

    def __init__(self, folder: AttemptPaths) -> None:
        self._folder = folder
        self._metrics, self._memory = Tail(folder.metrics), Tail(folder.memory)
        self._expected: int | None = None
        self._spec_read = False
        self._step = 0
        self._loss: float | None = None
        self._gpu: Memory | None = None
        self._host: Memory | None = None

    def look(self) -> Pulse:
        if not self._spec_read:
            spec = read_record(AttemptSpec, self._folder.spec)
            self._spec_read, self._expected = spec is not None, spec.expected_steps if spec else None
        self._read_metrics()
        self._read_memory()
        heartbeat = read_record(Heartbeat, self._folder.heartbeat)
        return Pulse(heartbeat, self._expected, self._step, self._loss, self._gpu, self._host)

    def _read_metrics(self) -> None:
        for row in parse_rows(b"\n".join(self._metrics.new_lines())):
            self._step = row.step
            found = next((row.data[name] for name in LOSS if name in row.data), None)
            self._loss = found if found is not None else self._loss

    def _read_memory(self) -> None:
        for line in self._memory.new_lines():
            try:
                sample = MemorySample.from_json(line)
                self._gpu = _grown(self._gpu, max(sample.gpu_used, default=None), min(sample.gpu_total, default=None))
                used = sample.cgroup_current if sample.process_pss is None else sample.process_pss
                self._host = _grown(self._host, used, sample.cgroup_limit)
            except (ValueError, TypeError):
                continue


def _grown(before: Memory | None, used: int | None, total: int | None) -> Memory | None:
    if used is None:
        return before
    return Memory(used, max(used, before.peak if before else 0), total)


def limits_of(spec: SweepSpec, view: View) -> Limits:
    """What the sweep is driven by, as far as the store tells: without pools its machine has no GPUs to count."""
    pools = {attempt.pool for history in view.attempts.values() for attempt in history if attempt.pool}
    ladder = tuple(Pool(name) for name in spec.resources.ladder)
    return Limits(
        max_parallel=spec.budget.max_parallel,
        gpus_per_attempt=spec.resources.gpus if pools else 0,
        gpu_hours=spec.budget.gpu_hours,
        time_limit_s=spec.resources.time_s,
        ladder=ladder,
    )
