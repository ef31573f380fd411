"""What follows from a verdict: the retry policy, as one pure function over plain data.

Each cause has a ledger of its own, a point has a ceiling over all of them, and the ladder of pools is climbed, never
descended. Preemptions are free: they say nothing about the point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.model import Verdict

HOST_MEMORY_GROWTH = 1.5
"""A host out-of-memory retry asks for this many times the memory."""


class Act(StrEnum):
    SUCCEED = "succeed"
    RETRY = "retry"
    FAIL = "fail"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Tried:
    """One judged attempt of a point."""

    verdict: Verdict
    pool: str | None
    reason: str = ""
    host_memory_bytes: int | None = None


@dataclass(frozen=True)
class Decision:
    act: Act
    reason: str
    pool: str | None = None
    """Where the retry runs."""
    host_memory_bytes: int | None = None
    """What the retry asks for."""


@dataclass(frozen=True)
class RetryRules:
    attempts_per_point: int
    """Ceiling over all causes, preemptions not counted."""
    budgets: Mapping[str, int]
    """Retries per verdict; a verdict that is absent is never retried."""


def decide(history: Sequence[Tried], ladder: Sequence[str], rules: RetryRules) -> Decision:
    """What to do after the last attempt of `history`.

    Args:
        history: all judged attempts of the point, oldest first; not empty.
        ladder: pools from small to large; empty where there is only one.
        rules: budgets per cause and the ceiling.
    """
    last = history[-1]
    if last.verdict is Verdict.COMPLETED:
        return Decision(Act.SUCCEED, last.reason)
    if last.verdict is Verdict.CANCELLED:
        return Decision(Act.CANCEL, last.reason)
    if last.verdict is Verdict.PREEMPTED:
        return Decision(Act.RETRY, "preempted: requeued, free of charge", last.pool, last.host_memory_bytes)
    exhausted = _exhausted(history, rules)
    if exhausted:
        return Decision(Act.FAIL, f"{last.reason or last.verdict.value}; {exhausted}")
    if last.verdict is Verdict.GPU_OOM:
        return _climb(last, ladder, "the GPU's memory did not suffice")
    if last.verdict is Verdict.HOST_OOM:
        return _after_host_oom(last, ladder)
    return Decision(Act.RETRY, f"{last.verdict.value}: tried again", last.pool, last.host_memory_bytes)


def _exhausted(history: Sequence[Tried], rules: RetryRules) -> str | None:
    """Why no further attempt may be charged, or None."""
    cause = history[-1].verdict
    budget = rules.budgets.get(cause.value, 0)
    used = sum(tried.verdict is cause for tried in history) - 1
    charged = sum(tried.verdict is not Verdict.PREEMPTED for tried in history)
    if budget == 0:
        return f"{cause.value} is not retried"
    if used >= budget:
        return f"the {budget} {'retry' if budget == 1 else 'retries'} for {cause.value} are used up"
    if charged >= rules.attempts_per_point:
        return f"the ceiling of {rules.attempts_per_point} attempts is reached"
    return None


def _after_host_oom(last: Tried, ladder: Sequence[str]) -> Decision:
    if last.host_memory_bytes is None:
        return _climb(last, ladder, "the host's memory did not suffice")
    grown = int(last.host_memory_bytes * HOST_MEMORY_GROWTH)
    return Decision(Act.RETRY, f"host memory raised to {grown / 1024**3:.0f} GiB", last.pool, grown)


def _climb(last: Tried, ladder: Sequence[str], why: str) -> Decision:
    at = ladder.index(last.pool) if last.pool in ladder else -1
    if last.pool is None or at + 1 >= len(ladder) or at < 0:
        top = f"{last.pool} is the largest pool" if last.pool else "there is no larger pool"
        return Decision(Act.FAIL, f"{why}, and {top}: lower the batch, the response length or 1/factor")
    larger = ladder[at + 1]
    return Decision(Act.RETRY, f"{why}: moved from {last.pool} to {larger}", larger, last.host_memory_bytes)
