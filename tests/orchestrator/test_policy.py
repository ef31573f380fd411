"""The policy by its promises: it ends, keeps its budgets, never descends, and charges nothing for a preemption."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from orchestrator.model import Verdict
from orchestrator.policy import Act, Decision, RetryRules, Tried, decide

RULES = RetryRules(
    attempts_per_point=6, budgets={"gpu_oom": 2, "host_oom": 2, "node_failure": 3, "hang": 1, "unknown": 1}
)
LADDER = ("h100", "h200")

rules = st.builds(
    RetryRules,
    attempts_per_point=st.integers(1, 8),
    budgets=st.dictionaries(st.sampled_from([verdict.value for verdict in Verdict]), st.integers(0, 4)),
)


def simulate(verdicts: list[Verdict], limits: RetryRules) -> tuple[list[Tried], Decision | None]:
    """Run a point whose attempts end in `verdicts`, one after another, until the policy stops."""
    history: list[Tried] = []
    pool, memory, decision = LADDER[0], 2**36, None
    for verdict in verdicts:
        history.append(Tried(verdict, pool, verdict.value, memory))
        decision = decide(history, LADDER, limits)
        if decision.act is not Act.RETRY:
            return history, decision
        pool, memory = decision.pool or LADDER[0], decision.host_memory_bytes or memory
    return history, None


@given(st.lists(st.sampled_from(list(Verdict)), min_size=1, max_size=40), rules)
def test_no_budget_and_no_ceiling_is_ever_exceeded(verdicts: list[Verdict], limits: RetryRules) -> None:
    history, _ = simulate(verdicts, limits)
    charged = [tried for tried in history if tried.verdict is not Verdict.PREEMPTED]
    assert len(charged) <= limits.attempts_per_point
    for verdict in set(Verdict) - {Verdict.PREEMPTED}:
        assert sum(tried.verdict is verdict for tried in history) <= limits.budgets.get(verdict.value, 0) + 1


@given(st.lists(st.sampled_from(sorted(set(Verdict) - {Verdict.PREEMPTED})), min_size=9, max_size=9), rules)
def test_without_preemptions_every_point_comes_to_an_end(verdicts: list[Verdict], limits: RetryRules) -> None:
    assert simulate(verdicts, limits)[1] is not None


@given(st.lists(st.sampled_from(list(Verdict)), min_size=1, max_size=40), rules)
def test_the_ladder_is_never_descended_and_memory_never_shrinks(verdicts: list[Verdict], limits: RetryRules) -> None:
    history, _ = simulate(verdicts, limits)
    steps = [LADDER.index(tried.pool or "") for tried in history]
    assert steps == sorted(steps)
    memory = [tried.host_memory_bytes or 0 for tried in history]
    assert memory == sorted(memory)


@given(st.integers(1, 30))
def test_preemptions_are_never_charged(times: int) -> None:
    history = [Tried(Verdict.PREEMPTED, "h100")] * times
    assert decide(history, LADDER, RULES).act is Act.RETRY
    assert decide([*history, Tried(Verdict.NODE_FAILURE, "h100")], LADDER, RULES).act is Act.RETRY


def test_a_gpu_out_of_memory_moves_to_the_next_pool() -> None:
    decision = decide([Tried(Verdict.GPU_OOM, "h100")], LADDER, RULES)
    assert (decision.act, decision.pool) == (Act.RETRY, "h200")
    assert "from h100 to h200" in decision.reason


def test_a_gpu_out_of_memory_on_the_largest_pool_fails_with_advice() -> None:
    decision = decide([Tried(Verdict.GPU_OOM, "h100"), Tried(Verdict.GPU_OOM, "h200")], LADDER, RULES)
    assert decision.act is Act.FAIL
    assert "h200 is the largest pool" in decision.reason


def test_a_host_out_of_memory_asks_for_more_memory_first() -> None:
    decision = decide([Tried(Verdict.HOST_OOM, "h100", host_memory_bytes=100)], LADDER, RULES)
    assert (decision.act, decision.pool, decision.host_memory_bytes) == (Act.RETRY, "h100", 150)


@pytest.mark.parametrize(
    ("verdict", "act"),
    [
        (Verdict.COMPLETED, Act.SUCCEED),
        (Verdict.CANCELLED, Act.CANCEL),
        (Verdict.CODE_ERROR, Act.FAIL),
        (Verdict.TIME_LIMIT, Act.FAIL),
        (Verdict.HANG, Act.RETRY),
    ],
)
def test_each_verdict_has_its_default(verdict: Verdict, act: Act) -> None:
    assert decide([Tried(verdict, None)], (), RULES).act is act
