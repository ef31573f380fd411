"""The shell around the pure parts: load the view, ask `plan` what to do, apply it, again and again until all is settled.

Every action is guarded by the state that it was planned for, so it may be interrupted anywhere and planned again by the
next process. Nothing here decides: `plan`, `triage` and `policy` do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from orchestrator import patches
from orchestrator.backends.base import ArrayBackend, Backend, JobRef, JobRequest, JobState, JobStatus
from orchestrator.clock import Clock
from orchestrator.collect.attempt import collect_attempt, read_record
from orchestrator.errors import BackendError, Deferred, SpecError, SubmitUncertain, Unobservable
from orchestrator.judging import judge_attempt
from orchestrator.launch import Ask, Site, new_attempt, write_attempt
from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.measuring import collected_columns
from orchestrator.model import AttemptState, PointState, Pool, Scalar
from orchestrator.paths import AttemptPaths
from orchestrator.peers import usual
from orchestrator.placement import Placement
from orchestrator.plan import (
    Action,
    Block,
    Cancel,
    Collect,
    Judge,
    Limits,
    Log,
    Poll,
    Ready,
    Recover,
    Settle,
    Start,
    Submit,
    plan,
)
from orchestrator.policy import Act, Decision, RetryRules, Tried, decide
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.triage.own_patterns import book_of
from orchestrator.waiting import WAITS
from trainer_ext.records import Heartbeat

LOG_TRIES = 3
"""A sink that fails this often for one point is left alone until the next run; its failure is a warning."""

REASON_EVERY_S = 60.0


class PointLogger(Protocol):
    """Where settled and running points go: MLflow, behind `orchestrator.sinks`."""

    def log(self, point: PointRow, history: Sequence[AttemptRow]) -> None: ...


class Steering(Protocol):
    """What adds points while the sweep runs, and ends some early: `orchestrator.search.driver`."""

    def advance(self, view: View) -> View: ...

    def pruned(self, point_id: str) -> str | None: ...


@dataclass
class Drive:
    """One sweep being driven by this process; effects come in here."""

    sweep: str
    spec: SweepSpec
    store: Store
    backend: Backend
    logger: PointLogger
    clock: Clock
    site: Site
    limits: Limits
    rules: RetryRules
    pools: Mapping[str, Pool]
    ladder: tuple[str, ...]
    """Pools from small to large; the first attempt starts on the first."""
    poll_s: float
    warn: Callable[[str], None]
    """Takes one sentence; the loop says each only once."""
    announce: Callable[[View], None] = lambda _view: None
    """Sees each tick, and tells whoever is not looking."""
    random: Callable[[], float] = random.random
    """In [0, 1), for the jitter of waits."""
    search: Steering | None = None
    _warned: set[str] = field(default_factory=set)
    _steps: dict[str, int] = field(default_factory=dict)
    _reasons: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By token: what a queued job was last said to wait for, and when."""
    _failed_logs: dict[str, int] = field(default_factory=dict)
    _polled_at: float = float("-inf")

    def run(self, observe: Callable[[View], None]) -> View:
        """Drive until every point is settled and logged; `observe` sees each tick."""
        while True:
            view = self.store.view(self.sweep)
            if self.search is not None:
                view = self.search.advance(view)
            observe(view)
            self.announce(view)
            actions = [action for action in plan(view, self.limits, self.clock.now()) if not self._given_up(action)]
            if view.finished and not actions:
                return view
            if not self._apply_all(actions):
                self.clock.sleep(self.poll_s)

    def _given_up(self, action: Action) -> bool:
        return isinstance(action, Log) and self._failed_logs.get(action.point.id, 0) >= LOG_TRIES

    def _apply_all(self, actions: Sequence[Action]) -> bool:
        """Carry them out, submissions first and together where the backend takes many; True when one changed anything."""
        if not isinstance(self.backend, ArrayBackend):
            changes = [self.apply(action) for action in actions]
            return any(changes)
        submits = [action for action in actions if isinstance(action, Submit)]
        changes = [self._submit_many(submits, self.backend)] if submits else []
        changes += [self.apply(action) for action in actions if not isinstance(action, Submit)]
        return any(changes)

    def apply(self, action: Action) -> bool:
        """Carry one action out; True when it changed anything."""
        match action:
            case Ready(point):
                return self.store.move_point(point, PointState.READY)
            case Start(point, history, where):
                return self._start(point, history, where)
            case Submit(point, attempt):
                return self._submit(point, attempt)
            case Recover(attempt):
                return self._recover(attempt)
            case Poll(attempts):
                return self._poll(attempts)
            case Cancel(attempt):
                return self._cancel(attempt)
            case Collect(attempt):
                return self._collect(attempt)
            case Judge(history):
                return self._judge(history)
            case Settle(point, history):
                return self._settle(point, history)
            case Block(point, reason):
                return self.store.move_point(point, PointState.BLOCKED, reason)
            case Log(point, history):
                return self._log(point, history)

    # ---- starting --------------------------------------------------------------------------------------------------

    def _start(self, point: PointRow, history: Sequence[AttemptRow], where: Placement) -> bool:
        """Persist the intent: the attempt's row with its name and token, before anything happens outside."""
        ask, why = Ask(where.pool, self.spec.resources.host_memory_bytes), where.why
        if tried := Tried.of(history):
            decision = decide(tried, self.ladder, self.rules)
            pool, why = self._higher(decision, where)
            patch = self._patch(point, decision)
            ask = Ask(pool, decision.host_memory_bytes, patch, decision.exclude_nodes)
        n = history[-1].n + 1 if history else 1
        return self.store.start_attempt(point, new_attempt(point, n, ask, self.clock.now()), why)

    def _higher(self, decision: Decision, where: Placement) -> tuple[str | None, str]:
        """The policy's pool; or a larger one still, where other points have shown that it is too small."""
        rung = {pool: n for n, pool in enumerate(self.ladder)}
        if where.why and rung.get(where.pool or "", -1) > rung.get(decision.pool or "", len(rung)):
            return where.pool, f"{decision.reason}; {where.why}"
        return decision.pool, decision.reason

    def _patch(self, point: PointRow, decision: Decision) -> dict[str, Scalar]:
        """All keys that the retry runs with another value for.

        Raises:
            SpecError: the sweep file's expression has no value for this point.
        """
        patch = dict(decision.patch)
        if decision.change:
            config = self.store.config(self.sweep, point.id)
            of_pool = patches.of_pool(self.pools.get(decision.pool or ""), config, self.spec.alias)
            config = patches.apply(config, {**of_pool, **patch})
            patch |= patches.evaluate(decision.change, config, self.spec.alias)
        return patch

    def _submit(self, point: PointRow, attempt: AttemptRow) -> bool:
        submitting = self._prepare(point, attempt, self.store.view(self.sweep))
        return submitting is not None and self._call_submit(submitting)

    def _submit_many(self, actions: Sequence[Submit], backend: ArrayBackend) -> bool:
        view = self.store.view(self.sweep)
        prepared = [self._prepare(action.point, action.attempt, view) for action in actions]
        submitting = [attempt for attempt in prepared if attempt is not None]
        wanted = [attempt for attempt in submitting if not attempt.cancel_requested]
        replies = backend.submit_many([self._request(attempt) for attempt in wanted]) if wanted else {}
        for attempt in wanted:
            self._submitted(attempt, replies[attempt.token])
        for attempt in submitting:
            if attempt.cancel_requested:
                self._call_submit(attempt)
        return bool(submitting)

    def _prepare(self, point: PointRow, attempt: AttemptRow, view: View) -> AttemptRow | None:
        """Write the attempt's folder; the row in state submitting, or None where somebody else took it."""
        config = self.store.config(self.sweep, attempt.point)
        pool = self.pools.get(attempt.pool or "")
        write_attempt(self.site, self.spec, point, config, attempt, pool, usual(view, point, attempt.pool))
        return self.store.move_attempt(attempt, AttemptState.SUBMITTING)

    def _call_submit(self, attempt: AttemptRow) -> bool:
        """`attempt` is in state submitting, as of just now, and no job of its name exists."""
        if attempt.cancel_requested:
            return self.store.move_attempt(attempt, AttemptState.ENDED, "cancelled before it was submitted") is not None
        try:
            return self._submitted(attempt, self.backend.submit(self._request(attempt)))
        except BackendError as error:
            return self._submitted(attempt, error)

    def _submitted(self, attempt: AttemptRow, reply: str | BackendError) -> bool:
        """What came of a submission: a handle, or why there is none."""
        match reply:
            case str():
                return self.store.move_attempt(attempt, AttemptState.SUBMITTED, handle=reply) is not None
            case SubmitUncertain():
                return self.store.move_attempt(attempt, AttemptState.UNCERTAIN, str(reply)) is not None
            case Deferred():
                return self._defer(attempt, str(reply))
        refused, now = f"refused by {self.backend.name}: {reply}", self.clock.now()
        moved = self.store.move_attempt(
            attempt, AttemptState.ENDED, refused, scheduler_reason=refused, started_at=now, ended_at=now
        )
        return moved is not None

    def _defer(self, attempt: AttemptRow, why: str) -> bool:
        """There is no room now: the same attempt is submitted again later, and nothing is charged."""
        times = attempt.deferrals + 1
        wait = self.rules.backoff.seconds(times, self.random())
        again = {"deferrals": times, "not_before": self.clock.now() + wait}
        self._warn(f"{self.backend.name} has no room for {attempt.job_name}; it is submitted again until it has: {why}")
        return self.store.move_attempt(attempt, AttemptState.CREATED, f"deferred: {why}", **again) is not None

    def _recover(self, attempt: AttemptRow) -> bool:
        """We died, or the reply was lost, between the call and writing the handle: adopt what is found, else submit."""
        try:
            handle = self.backend.find(self._request(attempt))
        except Unobservable as error:
            self._warn(f"{attempt.job_name}: {error}")
            return False
        if handle is not None:
            return self.store.move_attempt(attempt, AttemptState.SUBMITTED, "adopted", handle=handle) is not None
        if attempt.state is AttemptState.UNCERTAIN:
            again = self.store.move_attempt(attempt, AttemptState.SUBMITTING, "no such job: submitted again")
            if again is None:
                return True
            attempt = again
        return self._call_submit(attempt)

    def _request(self, attempt: AttemptRow) -> JobRequest:
        wanted = self.spec.resources.model()
        return JobRequest(
            name=attempt.job_name,
            token=attempt.token,
            attempt_dir=self._folder(attempt).dir,
            pool=self.pools.get(attempt.pool or ""),
            resources=replace(
                wanted,
                ladder=self.ladder,
                host_memory_bytes=attempt.host_memory_bytes,
                exclude_nodes=attempt.exclude_nodes,
            ),
            after=self._previous(attempt) if attempt.n > 1 else None,
        )

    def _previous(self, attempt: AttemptRow) -> JobRef | None:
        """The job of the point's last attempt before this one, where it had one."""
        rows = [row for row in self.store.attempts(self.sweep) if row.point == attempt.point and row.n < attempt.n]
        last = max(rows, key=lambda row: row.n, default=None)
        return self._ref(last) if last is not None and last.handle else None

    # ---- watching --------------------------------------------------------------------------------------------------

    def _poll(self, attempts: Sequence[AttemptRow]) -> bool:
        if self.clock.now() - self._polled_at < self.poll_s:
            return False
        self._polled_at = self.clock.now()
        try:
            statuses = self.backend.poll([self._ref(attempt) for attempt in attempts])
        except Unobservable as error:
            self._warn(f"cannot ask {self.backend.name}: {error}")
            return False
        changed = False
        for attempt in attempts:
            status = statuses.get(attempt.handle or "")
            changed |= status is not None and self._observe(attempt, status)
            changed |= self._notice_step(attempt)
        self._note_reasons(attempts, statuses)
        return changed

    def _note_reasons(self, attempts: Sequence[AttemptRow], statuses: Mapping[str, JobStatus]) -> None:
        """What queued jobs wait for, on record for whoever watches: when it changes, and once a minute at most."""
        now, said = self.clock.now(), []
        for attempt in attempts:
            status = statuses.get(attempt.handle or "")
            if attempt.state is not AttemptState.QUEUED or status is None or status.state is not JobState.QUEUED:
                continue
            before, at = self._reasons.get(attempt.token, (None, float("-inf")))
            if status.reason and status.reason != before and now - at >= REASON_EVERY_S:
                self._reasons[attempt.token] = (status.reason, now)
                said.append((attempt, WAITS + status.reason))
        if said:
            self.store.note_all(said)

    def _notice_step(self, attempt: AttemptRow) -> bool:
        """A running attempt that completed another step is logged again."""
        heartbeat = read_record(Heartbeat, self._folder(attempt).heartbeat)
        if heartbeat is None or (heartbeat.step or 0) <= self._steps.get(attempt.token, 0):
            return False
        self._steps[attempt.token] = heartbeat.step or 0
        self.store.mark_unlogged(attempt.sweep, attempt.point)
        return True

    def _observe(self, attempt: AttemptRow, status: JobStatus) -> bool:
        now = self.clock.now()
        if status.is_stuck:
            self._warn(f"{attempt.job_name} will not start as it is: {self.backend.name} says {status.reason}")
        match status.state, attempt.state:
            case JobState.QUEUED, AttemptState.SUBMITTED | AttemptState.RUNNING:
                moved = self.store.move_attempt(attempt, AttemptState.QUEUED, status.reason)
            case JobState.RUNNING, AttemptState.SUBMITTED | AttemptState.QUEUED:
                moved = self.store.move_attempt(attempt, AttemptState.RUNNING, started_at=attempt.started_at or now)
            case JobState.ENDED | JobState.GONE, _:
                moved = self.store.move_attempt(
                    attempt,
                    AttemptState.ENDED,
                    status.reason,
                    gone=status.state is JobState.GONE,
                    scheduler_reason=status.reason,
                    exit_code=status.exit_code,
                    ended_at=now,
                )
            case _:
                return False
        return moved is not None

    def _cancel(self, attempt: AttemptRow) -> bool:
        try:
            self.backend.cancel(self._ref(attempt))
        except BackendError as error:
            self._warn(f"cannot cancel {attempt.job_name}: {error}")
        return False

    def _ref(self, attempt: AttemptRow) -> JobRef:
        return JobRef(attempt.handle or "", attempt.job_name, attempt.token, self._folder(attempt).dir)

    def _folder(self, attempt: AttemptRow) -> AttemptPaths:
        return self.site.paths.attempt(attempt.sweep, attempt.point, attempt.n)

    # ---- ending ----------------------------------------------------------------------------------------------------

    def _collect(self, attempt: AttemptRow) -> bool:
        folder = self._folder(attempt)
        evidence = collect_attempt(
            folder.dir,
            backend_ended=True,
            gone=attempt.gone,
            scheduler_reason=attempt.scheduler_reason,
            cancel_requested=attempt.cancel_requested,
            book=book_of(self.spec),
        )
        columns = collected_columns(attempt, evidence, folder)
        moved = self.store.move_attempt(attempt, AttemptState.COLLECTED, **columns)
        return moved is not None

    def _judge(self, history: Sequence[AttemptRow]) -> bool:
        found = judge_attempt(self.store, history)
        moved = self.store.move_attempt(history[-1], AttemptState.JUDGED, found.sentence, **found.columns())
        return moved is not None

    def _settle(self, point: PointRow, history: Sequence[AttemptRow]) -> bool:
        decision = decide(Tried.of(history), self.ladder, self.rules, self.random())
        pruned = self.search.pruned(point.id) if self.search and history[-1].cancel_requested else None
        if pruned is not None and decision.act in (Act.CANCEL, Act.RETRY):
            return self.store.move_point(point, PointState.PRUNED, pruned)
        if decision.act is Act.RETRY and history[-1].cancel_requested:
            return self.store.move_point(point, PointState.CANCELLED, f"cancelled; before that {history[-1].reason}")
        try:
            self._patch(point, decision)
        except SpecError as error:
            return self.store.move_point(point, PointState.FAILED, f"{history[-1].reason}; no patch: {error}")
        later = self.clock.now() + decision.delay_s if decision.delay_s else None
        return self.store.move_point(point, _STATE_AFTER[decision.act], decision.reason, later)

    def _log(self, point: PointRow, history: Sequence[AttemptRow]) -> bool:
        try:
            self.logger.log(point, history)
        except Exception as error:
            self._failed_logs[point.id] = self._failed_logs.get(point.id, 0) + 1
            self._warn(f"{point.name}: logging failed: {error}")
            return False
        self.store.mark_logged(point)
        return True

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            self.warn(message)


_STATE_AFTER = {
    Act.SUCCEED: PointState.SUCCEEDED,
    Act.RETRY: PointState.READY,
    Act.FAIL: PointState.FAILED,
    Act.CANCEL: PointState.CANCELLED,
}
