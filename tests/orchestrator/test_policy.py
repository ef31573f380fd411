"""The policy by its promises: it ends, keeps its budgets, never descends, and charges nothing for a preemption."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from orchestrator.model import Verdict
from orchestrator.policy import Act, Backoff, Decision, RetryRules, Tried, charges, decide

RULES = RetryRules(
    attempts_per_point=6, budgets={"gpu_oom": 2, "host_oom": 2, "node_failure": 3, "hang": 1, "unknown": 1}
)
LADDER = ("h100", "h200")
UTILIZATION = {"rollout.gpu_memory_utilization": "x-0.1"}

rules = st.builds(
    RetryRules,
    attempts_per_point=st.integers(1, 8),
    budgets=st.dictionaries(st.sampled_from([verdict.value for verdict in Verdict]), st.integers(0, 4)),
    patches=st.sampled_from([{}, {"gpu_oom": UTILIZATION, "hang": {"a": "1"}}]),
)
ends = st.tuples(st.sampled_from(list(Verdict)), st.integers(0, 6), st.integers(0, 6))
"""How an attempt ends: verdict, last step, newest checkpoint."""


def simulate(
    outcomes: list[tuple[Verdict, int, int]], limits: RetryRules
) -> tuple[list[Tried], list[Decision], Decision | None]:
    """Run a point whose attempts end like this, one after another, until the policy stops."""
    history: list[Tried] = []
    decisions: list[Decision] = []
    pool, memory, patch = LADDER[0], 2**36, dict[str, object]()
    for n, (verdict, steps, checkpoint) in enumerate(outcomes):
        tried = Tried(verdict, pool, verdict.value, memory, steps, min(steps, checkpoint), f"node{n}", patch)  # type: ignore[arg-type]
        history.append(tried)
        decision = decide(history, LADDER, limits)
        decisions.append(decision)
        if decision.act is not Act.RETRY:
            return history, decisions, decision
        pool, memory = decision.pool or LADDER[0], decision.host_memory_bytes or memory
        patch = {**decision.patch, **decision.change}
    return history, decisions, None


@given(st.lists(ends, min_size=1, max_size=40), rules)
def test_no_budget_and_no_ceiling_is_ever_exceeded(
    outcomes: list[tuple[Verdict, int, int]], limits: RetryRules
) -> None:
    history, _, _ = simulate(outcomes, limits)
    charged = [tried for tried in history if tried.verdict is not Verdict.PREEMPTED]
    assert len(charged) <= limits.attempts_per_point
    for length in range(1, len(history) + 1):
        for verdict, count in charges(history[:length]).items():
            resumed = verdict is Verdict.TIME_LIMIT  # goes on after a checkpoint; the ceiling alone counts it
            assert resumed or count <= limits.budgets.get(verdict.value, 0) + 1


@given(st.lists(ends.filter(lambda end: end[0] is not Verdict.PREEMPTED), min_size=9, max_size=9), rules)
def test_without_preemptions_every_point_comes_to_an_end(
    outcomes: list[tuple[Verdict, int, int]], limits: RetryRules
) -> None:
    assert simulate(outcomes, limits)[2] is not None


@given(st.lists(ends, min_size=1, max_size=40), rules)
def test_the_ladder_is_never_descended_and_nothing_that_was_given_is_taken_back(
    outcomes: list[tuple[Verdict, int, int]], limits: RetryRules
) -> None:
    history, decisions, _ = simulate(outcomes, limits)
    steps = [LADDER.index(tried.pool or "") for tried in history]
    assert steps == sorted(steps)
    memory = [tried.host_memory_bytes or 0 for tried in history]
    assert memory == sorted(memory)
    retries = [decision for decision in decisions if decision.act is Act.RETRY]
    for earlier, later in itertools.pairwise(retries):
        assert set(earlier.exclude_nodes) <= set(later.exclude_nodes)
        assert {**earlier.patch, **earlier.change}.keys() <= {**later.patch, **later.change}.keys()


@given(st.lists(ends, min_size=1, max_size=20), rules, st.integers(0, 19), st.integers(1, 3))
def test_a_preemption_changes_no_later_decision(
    outcomes: list[tuple[Verdict, int, int]], limits: RetryRules, at: int, times: int
) -> None:
    """Preemptions put anywhere into a point's life are as if they had not been."""
    outcomes = [end for end in outcomes if end[0] is not Verdict.PREEMPTED]
    preempted = [*outcomes[:at], *[(Verdict.PREEMPTED, 0, 0)] * times, *outcomes[at:]]
    plain, disturbed = simulate(outcomes, limits)[0], simulate(preempted, limits)[0]
    assert [t.verdict for t in plain] == [t.verdict for t in disturbed if t.verdict is not Verdict.PREEMPTED][
        : len(plain)
    ]
    assert [t.pool for t in plain] == [t.pool for t in disturbed if t.verdict is not Verdict.PREEMPTED][: len(plain)]


@given(rules, st.lists(ends, min_size=1, max_size=12))
def test_a_patch_is_only_ever_what_the_sweep_file_allows(
    limits: RetryRules, outcomes: list[tuple[Verdict, int, int]]
) -> None:
    for decision in simulate(outcomes, limits)[1]:
        assert not decision.change or decision.change in limits.patches.values()


@given(st.integers(1, 30))
def test_preemptions_are_never_charged(times: int) -> None:
    history = [Tried(Verdict.PREEMPTED, "h100")] * times
    assert decide(history, LADDER, RULES).act is Act.RETRY
    assert decide([*history, Tried(Verdict.NODE_FAILURE, "h100")], LADDER, RULES).act is Act.RETRY


# ---- ledgers ---------------------------------------------------------------------------------------------------------


def failed(*steps: int, verdict: Verdict = Verdict.HANG) -> list[Tried]:
    return [Tried(verdict, "h100", steps=step) for step in steps]


def test_each_cause_has_a_ledger_of_its_own() -> None:
    history = [*failed(0), *failed(0, verdict=Verdict.UNKNOWN)]
    assert decide(history, LADDER, RULES).act is Act.RETRY
    assert decide([*history, *failed(0)], LADDER, RULES).act is Act.FAIL


def test_progress_wipes_the_ledger_and_standing_still_does_not() -> None:
    assert decide(failed(2, 2), LADDER, RULES).act is Act.FAIL
    assert decide(failed(2, 3), LADDER, RULES).act is Act.RETRY
    assert decide(failed(2, 3, 3), LADDER, RULES).act is Act.FAIL


def test_progress_never_lifts_the_ceiling() -> None:
    decision = decide(failed(1, 2, 3, 4, 5, 6), LADDER, RULES)
    assert decision.act is Act.FAIL
    assert "the ceiling of 6 attempts is reached" in decision.reason


# ---- remedies --------------------------------------------------------------------------------------------------------


def test_a_gpu_out_of_memory_moves_to_the_next_pool_at_once() -> None:
    decision = decide([Tried(Verdict.GPU_OOM, "h100")], LADDER, RULES)
    assert (decision.act, decision.pool, decision.delay_s) == (Act.RETRY, "h200", 0)
    assert "from h100 to h200" in decision.reason


def test_a_gpu_out_of_memory_on_the_largest_pool_fails_with_advice() -> None:
    decision = decide([Tried(Verdict.GPU_OOM, "h100"), Tried(Verdict.GPU_OOM, "h200")], LADDER, RULES)
    assert decision.act is Act.FAIL
    assert "h200 is the largest pool" in decision.reason


def test_a_patch_comes_only_where_no_larger_pool_is_left() -> None:
    allowed = RetryRules(6, {"gpu_oom": 2}, patches={"gpu_oom": UTILIZATION})
    history = [Tried(Verdict.GPU_OOM, "h100")]
    assert decide(history, LADDER, allowed).change == {}
    at_the_top = decide([*history, Tried(Verdict.GPU_OOM, "h200")], LADDER, allowed)
    assert (at_the_top.act, at_the_top.pool, at_the_top.change) == (Act.RETRY, "h200", UTILIZATION)
    assert "patched, rollout.gpu_memory_utilization becomes x-0.1" in at_the_top.reason


def test_without_a_ladder_the_patch_comes_at_once_and_stays() -> None:
    allowed = RetryRules(6, {"gpu_oom": 2, "hang": 1}, patches={"gpu_oom": UTILIZATION})
    assert decide([Tried(Verdict.GPU_OOM, None)], (), allowed).change == UTILIZATION
    patched = {"actor_rollout_ref.rollout.gpu_memory_utilization": 0.4}
    later = decide([Tried(Verdict.GPU_OOM, None), Tried(Verdict.HANG, None, patch=patched)], (), allowed)
    assert (later.patch, later.change) == (patched, {})


def test_a_host_out_of_memory_asks_for_more_memory_then_for_a_larger_pool() -> None:
    first = decide([Tried(Verdict.HOST_OOM, "h100", host_memory_bytes=100)], LADDER, RULES)
    assert (first.act, first.pool, first.host_memory_bytes) == (Act.RETRY, "h100", 150)
    tried = [Tried(Verdict.HOST_OOM, "h100", host_memory_bytes=memory) for memory in (100, 150)]
    second = decide(tried, LADDER, RULES)
    assert (second.act, second.pool, second.host_memory_bytes) == (Act.RETRY, "h200", 150)


def test_no_more_host_memory_is_asked_for_than_the_largest_node_has() -> None:
    most = RetryRules(6, {"host_oom": 3}, host_memory_max=120)
    assert decide([Tried(Verdict.HOST_OOM, "h200", host_memory_bytes=100)], LADDER, most).host_memory_bytes == 120
    assert decide([Tried(Verdict.HOST_OOM, "h200", host_memory_bytes=120)], LADDER, most).act is Act.FAIL


def test_nodes_that_failed_are_avoided_by_every_later_attempt() -> None:
    history = [Tried(Verdict.NODE_FAILURE, "h100", node="n1"), Tried(Verdict.NODE_FAILURE, "h100", node="n2")]
    assert decide(history, LADDER, RULES).exclude_nodes == ("n1", "n2")
    later = decide([*history, Tried(Verdict.GPU_OOM, "h100", node="n3")], LADDER, RULES)
    assert (later.pool, later.exclude_nodes) == ("h200", ("n1", "n2"))


def test_a_time_limit_is_retried_only_where_a_checkpoint_advanced() -> None:
    assert decide([Tried(Verdict.TIME_LIMIT, "h100", steps=4)], LADDER, RULES).act is Act.FAIL
    ahead = decide([Tried(Verdict.TIME_LIMIT, "h100", steps=4, checkpoint=4)], LADDER, RULES)
    assert (ahead.act, ahead.reason) == (Act.RETRY, "the time limit was reached: goes on after step 4")
    stuck = [Tried(Verdict.TIME_LIMIT, "h100", steps=4, checkpoint=4)] * 2
    assert decide(stuck, LADDER, RULES).act is Act.FAIL


@pytest.mark.parametrize(
    ("verdict", "act"),
    [
        (Verdict.COMPLETED, Act.SUCCEED),
        (Verdict.CANCELLED, Act.CANCEL),
        (Verdict.CODE_ERROR, Act.FAIL),
        (Verdict.CONFIG_ERROR, Act.FAIL),
        (Verdict.TIME_LIMIT, Act.FAIL),
        (Verdict.HANG, Act.RETRY),
    ],
)
def test_each_verdict_has_its_default(verdict: Verdict, act: Act) -> None:
    assert decide([Tried(verdict, None)], (), RULES).act is act


# ---- waits -----------------------------------------------------------------------------------------------------------


def test_waits_grow_with_every_failure_of_a_cause_up_to_a_limit() -> None:
    backoff = Backoff(base_s=5, factor=4, max_s=60, jitter=0)
    assert [backoff.seconds(n, 0.5) for n in (1, 2, 3, 4, 500)] == [5, 20, 60, 60, 60]
    often = RetryRules(9, {"unknown": 9}, backoff)
    waits = [decide(failed(*[0] * n, verdict=Verdict.UNKNOWN), LADDER, often).delay_s for n in (1, 2, 3)]
    assert waits == [5, 20, 60]


def test_preemptions_in_a_row_wait_longer_and_longer() -> None:
    waits = [decide([Tried(Verdict.PREEMPTED, "h100")] * n, LADDER, RULES).delay_s for n in (1, 2, 3)]
    assert waits == sorted(set(waits))
    assert decide([*failed(0), Tried(Verdict.PREEMPTED, "h100")], LADDER, RULES).delay_s == waits[0]


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_jitter_stays_within_its_share_and_nothing_waits_for_ever(n: int, random: float, jitter: float) -> None:
    backoff = Backoff(base_s=5, factor=4, max_s=1800, jitter=jitter)
    middle = Backoff(base_s=5, factor=4, max_s=1800, jitter=0).seconds(n, 0.5)
    assert (1 - jitter) * middle - 1e-9 <= backoff.seconds(n, random) <= (1 + jitter) * middle + 1e-9
