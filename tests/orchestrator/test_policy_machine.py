"""Planner and policy as one machine over a simulated cluster: jobs end in any way at any time, and the promises hold.

The simulation keeps rows as the store does and applies the planner's actions as the loop does; what an attempt comes to,
and when, is drawn at random. After every move the whole view is checked.
"""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.budget import spent
from orchestrator.ledger import AttemptRow, Measured, PointRow, View
from orchestrator.model import (
    ATTEMPT_TRANSITIONS,
    POINT_TRANSITIONS,
    AttemptState,
    Estimate,
    Forecast,
    PointState,
    Pool,
    Prediction,
    Verdict,
)
from orchestrator.plan import Block, Cancel, Collect, Judge, Limits, Log, Poll, Ready, Settle, Start, Submit, plan
from orchestrator.policy import Act, Backoff, RetryRules, Tried, charges, decide

LADDER = (Pool("h100", 8, 81_559), Pool("h200", 8, 143_771))
RUNGS = {pool.name: n for n, pool in enumerate(LADDER)}
TIME_LIMIT_S = 3600.0
GPUS = 8
MOST_PREEMPTIONS = 4
"""Of one point: a cluster that preempts for ever never finishes anything."""


class Cluster(RuleBasedStateMachine):
    """The rules move time and end jobs; `tick` lets the planner act until it has nothing more to do."""

    @initialize(
        sizes=st.lists(st.none() | st.integers(20, 160), min_size=1, max_size=5),
        hours=st.none() | st.integers(8, 80),
        parallel=st.integers(1, 3),
        ceiling=st.integers(1, 5),
    )
    def start(self, sizes: list[int | None], hours: int | None, parallel: int, ceiling: int) -> None:
        self.now = 1_000.0
        self.rules_ = RetryRules(
            ceiling,
            {"gpu_oom": 2, "host_oom": 1, "node_failure": 3, "hang": 1, "unknown": 1, "missing_output": 1},
            Backoff(base_s=10, factor=2, max_s=60),
            patches={"gpu_oom": {"memory": "x - 1"}},
        )
        self.limits = Limits(parallel, GPUS, hours, TIME_LIMIT_S, same_error_stops_sweep=2, ladder=LADDER)
        self.points = {f"p{n}": _point(n, size) for n, size in enumerate(sizes)}
        self.attempts: dict[str, list[AttemptRow]] = {name: [] for name in self.points}

    @property
    def view(self) -> View:
        return View.of(list(self.points.values()), [row for rows in self.attempts.values() for row in rows])

    # ---- what the world does ---------------------------------------------------------------------------------------

    @rule(seconds=st.floats(1, 2000))
    def time_passes(self, seconds: float) -> None:
        """Never beyond an attempt's own limit: the wrapper ends it there."""
        ends = [row.started_at + TIME_LIMIT_S for row in self._running() if row.started_at is not None]
        self.now = min(self.now + seconds, *ends) if ends else self.now + seconds

    @precondition(lambda self: self._running())
    @rule(data=st.data())
    def a_job_ends(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(self._running()))
        before = [other.verdict for other in self.attempts[row.point]]
        verdicts = [verdict for verdict in Verdict if verdict is not Verdict.CANCELLED]
        if before.count(Verdict.PREEMPTED) >= MOST_PREEMPTIONS:
            verdicts.remove(Verdict.PREEMPTED)
        verdict = data.draw(st.sampled_from(verdicts))
        steps = data.draw(st.integers(0, 4))
        seen = Measured(steps, checkpoint=data.draw(st.integers(0, steps)), node=data.draw(st.sampled_from("abc")))
        error = verdict in (Verdict.CODE_ERROR, Verdict.CONFIG_ERROR)
        self._change(
            row,
            AttemptState.ENDED,
            ended_at=self.now,
            verdict=verdict,
            reason=verdict.value,
            measured=seen,
            fingerprint=data.draw(st.sampled_from(["one", "two"])) if error else None,
        )

    @precondition(lambda self: any(row.state is AttemptState.CREATED for row in self._newest()))
    @rule(data=st.data())
    def a_submission_is_deferred(self, data: st.DataObject) -> None:
        """The quota is full: created -> submitting -> created, later."""
        row = data.draw(st.sampled_from([row for row in self._newest() if row.state is AttemptState.CREATED]))
        times = row.deferrals + 1
        wait = self.rules_.backoff.seconds(times, 0.5)
        again = self._change(row, AttemptState.SUBMITTING)
        self._change(again, AttemptState.CREATED, deferrals=times, not_before=self.now + wait)

    @rule()
    def tick(self) -> None:
        for _ in range(200):
            changes = [self._apply(action) for action in plan(self.view, self.limits, self.now)]
            if not any(changes):
                return
        raise AssertionError("the planner never comes to rest")

    # ---- what the loop does with an action ---------------------------------------------------------------------------

    def _apply(self, action: object) -> bool:
        match action:
            case Ready(point):
                self._move(point, PointState.READY)
            case Start(point, history, where):
                self._begin(point, history, where.pool)
            case Submit(_, attempt):
                submitted = self._change(self._change(attempt, AttemptState.SUBMITTING), AttemptState.SUBMITTED)
                self._change(submitted, AttemptState.RUNNING, started_at=self.now)
            case Collect(attempt):
                self._change(attempt, AttemptState.COLLECTED)
            case Judge(history):
                self._change(history[-1], AttemptState.JUDGED)
            case Settle(point, history):
                self._settle(point, history)
            case Block(point, reason):
                self._move(point, PointState.BLOCKED, reason=reason)
            case Poll() | Cancel() | Log():
                return False
            case _:
                raise AssertionError(f"nothing here is ever uncertain: {action}")
        return True

    def _begin(self, point: PointRow, history: tuple[AttemptRow, ...], pool: str | None) -> None:
        patch: dict[str, object] = {}
        excluded: tuple[str, ...] = ()
        if tried := Tried.of(history):
            decision = decide(tried, list(RUNGS), self.rules_)
            pool = max(pool or "", decision.pool or "", key=lambda name: RUNGS.get(name, -1))
            excluded, patch = decision.exclude_nodes, {**decision.patch, **decision.change}
        self._move(point, PointState.ACTIVE)
        row = AttemptRow("s", point.id, len(history) + 1, "t", "j", pool, AttemptState.CREATED, self.now)
        self.attempts[point.id].append(replace(row, patch=patch, exclude_nodes=excluded))  # type: ignore[arg-type]

    def _settle(self, point: PointRow, history: tuple[AttemptRow, ...]) -> None:
        decision = decide(Tried.of(history), list(RUNGS), self.rules_, random=0.9)
        states = {Act.SUCCEED: PointState.SUCCEEDED, Act.RETRY: PointState.READY, Act.FAIL: PointState.FAILED}
        self._move(point, states[decision.act], reason=decision.reason, not_before=self.now + decision.delay_s)

    def _move(self, point: PointRow, to: PointState, **more: object) -> None:
        row = self.points[point.id]
        assert row.state is point.state, "an action was planned for another state"
        assert to in POINT_TRANSITIONS[row.state]
        self.points[point.id] = replace(row, state=to, **more)  # type: ignore[arg-type]

    def _change(self, attempt: AttemptRow, to: AttemptState, **more: object) -> AttemptRow:
        assert to in ATTEMPT_TRANSITIONS[attempt.state]
        changed = replace(attempt, state=to, **more)  # type: ignore[arg-type]
        self.attempts[attempt.point][attempt.n - 1] = changed
        return changed

    def _newest(self) -> list[AttemptRow]:
        return [rows[-1] for rows in self.attempts.values() if rows]

    def _running(self) -> list[AttemptRow]:
        return [row for row in self._newest() if row.state is AttemptState.RUNNING]

    # ---- the promises ------------------------------------------------------------------------------------------------

    @invariant()
    def no_budget_is_exceeded(self) -> None:
        money = spent(self.view, GPUS, TIME_LIMIT_S, self.now)
        if self.limits.gpu_hours is not None:
            assert money.used + money.ahead <= self.limits.gpu_hours + 1e-6

    @invariant()
    def no_more_run_than_allowed(self) -> None:
        assert sum(point.state is PointState.ACTIVE for point in self.points.values()) <= self.limits.max_parallel

    @invariant()
    def no_ceiling_is_exceeded_and_preemptions_are_free(self) -> None:
        for rows in self.attempts.values():
            charged = [row for row in rows if row.verdict is not Verdict.PREEMPTED]
            assert len(charged) <= self.rules_.attempts_per_point
            for verdict, count in charges(Tried.of(rows)).items():
                if verdict is not Verdict.TIME_LIMIT:
                    assert count <= self.rules_.budgets.get(verdict.value, 0) + 1

    @invariant()
    def the_ladder_is_only_climbed(self) -> None:
        for rows in self.attempts.values():
            rungs = [RUNGS[row.pool or ""] for row in rows]
            assert rungs == sorted(rungs)

    @invariant()
    def nodes_that_failed_are_avoided(self) -> None:
        for rows in self.attempts.values():
            bad: set[str] = set()
            for row in rows:
                assert bad <= set(row.exclude_nodes)
                if row.verdict is Verdict.NODE_FAILURE and row.state is AttemptState.JUDGED and row.measured:
                    bad |= {row.measured.node} if row.measured.node else set()

    @invariant()
    def a_patch_comes_only_after_the_largest_pool(self) -> None:
        for rows in self.attempts.values():
            for row in rows:
                if row.patch:
                    assert any(r.verdict is Verdict.GPU_OOM and r.pool == LADDER[-1].name for r in rows[: row.n])

    def teardown(self) -> None:
        """From wherever it is, the sweep comes to its end once jobs end and time passes."""
        if not hasattr(self, "points"):
            return
        for _ in range(200):
            self.tick()
            if self.view.finished:
                break
            for row in self._running():
                self._change(
                    row, AttemptState.ENDED, ended_at=self.now, verdict=Verdict.UNKNOWN, reason="", measured=Measured()
                )
            self.now += 100
        assert self.view.finished, "it never ends"
        self.no_budget_is_exceeded()
        self.no_ceiling_is_exceeded_and_preemptions_are_free()


def _point(index: int, gib: int | None) -> PointRow:
    predicted = None
    if gib is not None:
        size = gib * 1024.0**3
        forecast = Forecast(gpu_bytes=Estimate(size, size, size), gpu_least_bytes=0.9 * size)
        pools = {pool.name: forecast for pool in LADDER}
        predicted = Prediction("job", {}, size, pools, pools)
    return PointRow(
        "s",
        f"p{index}",
        index,
        f"p{index}",
        {"x": index},
        {},
        (),
        "",
        PointState.PLANNED,
        unlogged=False,
        predicted=predicted,
    )


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
