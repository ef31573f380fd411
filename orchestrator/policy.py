"""What follows from a verdict: the retry policy, as pure functions over a point's history.

Each cause has a ledger of its own. A ledger is wiped when an attempt gets further than every attempt before it: a fault that
lets the work advance is none of the point's. Over all ledgers stands the ceiling of the point, which nothing wipes.
Preemptions are on no ledger: they say nothing about the point.

What a retry changes, in this order, as far as the cause asks for it: where it runs (the next pool of the ladder, climbed and
never descended; not on a node that failed), what it asks for (host memory), and last, where the sweep file allows it, the
experiment itself (a patch).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from orchestrator.ledger import AttemptRow, Measured
from orchestrator.model import Scalar, Verdict


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
    steps: int = 0
    """The last training step that it completed."""
    checkpoint: int = 0
    """The step that another attempt would resume after; 0: it would begin anew."""
    node: str | None = None
    patch: Mapping[str, Scalar] = field(default_factory=dict)

    @classmethod
    def of(cls, history: Sequence[AttemptRow]) -> list[Tried]:
        """The judged attempts of a point that count: not those before a rerun."""
        return [_tried(row, row.verdict) for row in history if row.verdict is not None and not row.superseded]


def _tried(row: AttemptRow, verdict: Verdict) -> Tried:
    seen = row.measured or Measured()
    return Tried(
        verdict=verdict,
        pool=row.pool,
        reason=row.reason or "",
        host_memory_bytes=row.host_memory_bytes,
        steps=seen.steps,
        checkpoint=seen.checkpoint,
        node=seen.node,
        patch=row.patch,
    )


@dataclass(frozen=True)
class Decision:
    act: Act
    reason: str
    pool: str | None = None
    """Where the retry runs."""
    host_memory_bytes: int | None = None
    """What the retry asks for."""
    exclude_nodes: tuple[str, ...] = ()
    patch: Mapping[str, Scalar] = field(default_factory=dict)
    """What is changed already, and stays so."""
    change: Mapping[str, str] = field(default_factory=dict)
    """What the retry changes besides: expressions in x, the present value, by key."""
    delay_s: float = 0.0
    """How long the retry waits."""


@dataclass(frozen=True)
class Backoff:
    """Waits that grow: base, base x factor, base x factor^2, ... seconds."""

    base_s: float = 5.0
    factor: float = 4.0
    max_s: float = 1800.0
    jitter: float = 0.2
    """Each wait is this share longer or shorter, so that what failed together does not come back together."""

    def seconds(self, n: int, random: float) -> float:
        """The n-th wait, from 1; `random` in [0, 1) draws its jitter."""
        grown = self.base_s * self.factor ** min(n - 1, 64)
        return min(self.max_s, grown) * (1 + self.jitter * (2 * random - 1))


@dataclass(frozen=True)
class RetryRules:
    attempts_per_point: int
    """Ceiling over all causes, preemptions not counted."""
    budgets: Mapping[str, int]
    """Retries per verdict since the last progress; a verdict that is absent is never retried."""
    backoff: Backoff = Backoff()
    host_memory_growth: float = 1.5
    """A host out-of-memory retry asks for this many times the memory."""
    host_memory_max: int | None = None
    """Bytes; the largest node's."""
    patches: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Cause -> key of the configuration -> expression in x. Empty unless the sweep file asks for it."""


def decide(history: Sequence[Tried], ladder: Sequence[str], rules: RetryRules, random: float = 0.5) -> Decision:
    """What to do after the last attempt of `history`.

    Args:
        history: all judged attempts of the point, oldest first; not empty.
        ladder: pools from small to large; empty where there is only one.
        rules: budgets per cause and the ceiling.
        random: in [0, 1), for the jitter of the wait.
    """
    last = history[-1]
    if last.verdict is Verdict.COMPLETED:
        return Decision(Act.SUCCEED, last.reason)
    if last.verdict is Verdict.CANCELLED:
        return Decision(Act.CANCEL, last.reason)
    again = _as_before(history)
    if last.verdict is Verdict.PREEMPTED:
        wait = rules.backoff.seconds(_run_of(Verdict.PREEMPTED, history), random)
        return replace(again, reason="preempted: requeued, free of charge", delay_s=wait)
    spent = _ceiling(history, rules)
    if last.verdict is Verdict.TIME_LIMIT and not spent and last.checkpoint > _best_checkpoint(history[:-1]):
        return replace(again, reason=f"the time limit was reached: goes on after step {last.checkpoint}")
    spent = _ledger(history, rules) or spent
    if spent:
        return Decision(Act.FAIL, f"{last.reason or last.verdict.value}; {spent}")
    return _retry(history, again, ladder, rules, random)


def _as_before(history: Sequence[Tried]) -> Decision:
    """The last attempt once more, but not where a node failed."""
    last = history[-1]
    bad = [tried.node for tried in history if tried.verdict is Verdict.NODE_FAILURE and tried.node]
    return Decision(
        Act.RETRY,
        f"{last.verdict.value}: tried again",
        last.pool,
        last.host_memory_bytes,
        exclude_nodes=tuple(dict.fromkeys(bad)),
        patch=last.patch,
    )


def charges(history: Sequence[Tried]) -> Counter[Verdict]:
    """The ledgers: attempts by cause since the last progress, the last attempt included; preemptions are on none."""
    ledger: Counter[Verdict] = Counter()
    furthest = 0
    for tried in history:
        if tried.steps > furthest:
            furthest = tried.steps
            ledger.clear()
        if tried.verdict is not Verdict.PREEMPTED:
            ledger[tried.verdict] += 1
    return ledger


def _ledger(history: Sequence[Tried], rules: RetryRules) -> str | None:
    """Why the cause's own budget allows no further attempt, or None."""
    cause = history[-1].verdict
    budget = rules.budgets.get(cause.value, 0)
    if budget == 0:
        return f"{cause.value} is not retried"
    if charges(history)[cause] > budget:
        retries = "retry is" if budget == 1 else "retries are"
        return f"{cause.value}: the {budget} {retries} used up"
    return None


def _ceiling(history: Sequence[Tried], rules: RetryRules) -> str | None:
    """Why the point as a whole is out of attempts, or None."""
    charged = sum(tried.verdict is not Verdict.PREEMPTED for tried in history)
    return (
        f"the ceiling of {rules.attempts_per_point} attempts is reached"
        if charged >= rules.attempts_per_point
        else None
    )


def _run_of(verdict: Verdict, history: Sequence[Tried]) -> int:
    """How many attempts at the end of `history` came to this verdict, one after another."""
    others = (n for n, tried in enumerate(reversed(history)) if tried.verdict is not verdict)
    return next(others, len(history))


def _best_checkpoint(history: Sequence[Tried]) -> int:
    return max((tried.checkpoint for tried in history), default=0)


def _retry(
    history: Sequence[Tried], again: Decision, ladder: Sequence[str], rules: RetryRules, random: float
) -> Decision:
    """The cause's own remedy; a patch only where no other is left."""
    last = history[-1]
    change = rules.patches.get(last.verdict.value, {})
    if last.verdict is Verdict.GPU_OOM:
        why = "the GPU's memory did not suffice"
        return _climb(again, why, ladder) or _patched(again, why, change) or _give_up(why, last.pool)
    if last.verdict is Verdict.HOST_OOM:
        why = "the host's memory did not suffice"
        first_here = sum(t.verdict is Verdict.HOST_OOM and t.pool == last.pool for t in history) == 1
        grow, climb = _grow(again, why, rules), _climb(again, why, ladder)
        better = grow or climb if first_here else climb or grow
        return better or _patched(again, why, change) or _give_up(why, last.pool)
    wait = rules.backoff.seconds(charges(history)[last.verdict], random)
    return replace(_patched(again, last.verdict.value, change) or again, delay_s=wait)


def _climb(again: Decision, why: str, ladder: Sequence[str]) -> Decision | None:
    at = ladder.index(again.pool) if again.pool in ladder else len(ladder)
    if at + 1 >= len(ladder):
        return None
    larger = ladder[at + 1]
    return replace(again, reason=f"{why}: moved from {again.pool} to {larger}", pool=larger)


def _grow(again: Decision, why: str, rules: RetryRules) -> Decision | None:
    now = again.host_memory_bytes
    if now is None:
        return None
    most = rules.host_memory_max or float("inf")
    grown = int(min(now * rules.host_memory_growth, most))
    if grown <= now:
        return None
    return replace(again, reason=f"{why}: raised to {grown / 1024**3:.0f} GiB", host_memory_bytes=grown)


def _patched(again: Decision, why: str, change: Mapping[str, str]) -> Decision | None:
    if not change:
        return None
    said = ", ".join(f"{key} becomes {expression}" for key, expression in change.items())
    return replace(again, reason=f"{why}: patched, {said}", change=dict(change))


def _give_up(why: str, pool: str | None) -> Decision:
    top = f"{pool} is the largest pool" if pool else "there is no larger pool"
    return Decision(Act.FAIL, f"{why}, and {top}: lower the batch, the response length or 1/factor")
