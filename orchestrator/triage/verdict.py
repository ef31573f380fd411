"""What an attempt came to: a table of small rules over `Evidence`, the first that holds wins.

Evidence outranks exit codes: a finished job may exit non-zero, and an exit code of 1 or 137 names no cause. Among the log's
roots the earliest decides, and what followed from it (NCCL aborts, dead Ray actors) never outranks it. A bare Python
traceback gives way to a root that names a cause: libraries print tracebacks of things that they get over.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.model import Verdict
from orchestrator.triage import words
from orchestrator.triage.completion import (
    fatal,
    is_complete,
    missing_steps,
    reports_failure,
    reports_success,
)
from orchestrator.triage.evidence import PLAIN_EXCEPTION, Evidence, Role, Signature
from orchestrator.triage.fingerprint import fingerprint

_CRASHES = frozenset({signals.SIGSEGV, signals.SIGBUS, signals.SIGILL, signals.SIGFPE, signals.SIGABRT})


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    reason: str
    """One sentence for users."""
    evidence: tuple[str, ...]
    """The facts behind it, with file and line where they have one."""
    fingerprint: str | None = None
    """Same for the same failure, of code and config errors."""
    cause: Signature | None = None
    """The line of the log that decided, where one did."""


@dataclass(frozen=True)
class Finding:
    """Why a rule holds."""

    reason: str
    facts: tuple[str, ...] = ()
    cause: Signature | None = None


Rule = Callable[[Evidence], Finding | None]


def judge(evidence: Evidence) -> Judgement:
    """The verdict over an attempt. Total: every evidence has one."""
    for verdict, rule in RULES:
        finding = rule(evidence)
        if finding is not None:
            return _judgement(verdict, finding)
    return _judgement(Verdict.UNKNOWN, _nothing_known(evidence))


def _judgement(verdict: Verdict, finding: Finding) -> Judgement:
    is_error = verdict in (Verdict.CODE_ERROR, Verdict.CONFIG_ERROR)
    return Judgement(
        verdict=verdict,
        reason=finding.reason,
        evidence=finding.facts + ((words.place(finding.cause),) if finding.cause else ()),
        fingerprint=fingerprint(finding.cause) if is_error and finding.cause else None,
        cause=finding.cause,
    )


def leading_root(evidence: Evidence) -> Signature | None:
    """The root that counts: the earliest that names a cause, else the earliest of the others."""
    roots = fatal(evidence, Role.ROOT)
    return next((root for root in roots if root.names_a_cause), next(iter(roots), None))


# ---- rules, in the order of the table --------------------------------------------------------------------------------


def _completed(evidence: Evidence) -> Finding | None:
    if not is_complete(evidence):
        return None
    done = f"all {evidence.expected_steps} steps done" if evidence.expected_steps else f"{words.steps(evidence)} logged"
    files = f", {len(evidence.npz)} score files valid" if evidence.npz else ""
    despite = f"; it ended with {words.end(evidence)} nevertheless" if reports_failure(evidence) else ""
    return Finding(done + files + despite, words.work(evidence))


def _still_running(evidence: Evidence) -> Finding | None:
    if evidence.ended:
        return None
    return Finding(f"still running: {words.steps(evidence)} logged so far", words.work(evidence))


def _cancelled(evidence: Evidence) -> Finding | None:
    if evidence.cancel_requested and evidence.stop_reason != "hang":
        return Finding("cancelled on request", words.work(evidence))
    if (evidence.scheduler_reason or "").startswith("CANCELLED"):
        return Finding("cancelled by somebody else, says the scheduler", _scheduler(evidence))
    return _root_of(Verdict.CANCELLED, "cancelled by somebody else")(evidence)


def _scheduler(evidence: Evidence) -> tuple[str, ...]:
    return (f"scheduler: {evidence.scheduler_reason}", *words.work(evidence))


def _scheduler_says(states: Iterable[str], reason: str) -> Rule:
    known = frozenset(states)

    def rule(evidence: Evidence) -> Finding | None:
        return Finding(reason, _scheduler(evidence)) if evidence.scheduler_reason in known else None

    return rule


def _root_of(verdict: Verdict, reason: str) -> Rule:
    def rule(evidence: Evidence) -> Finding | None:
        root = leading_root(evidence)
        if root is None or root.verdict != verdict or not root.names_a_cause:
            return None
        return Finding(f"{reason}: {words.shortened(root.text)}", words.work(evidence), root)

    return rule


def _oom_killed(evidence: Evidence) -> Finding | None:
    if not evidence.oom_kills:
        return None
    return Finding(
        f"the kernel killed {words.count(evidence.oom_kills, 'process', 'processes')} of the job for lack of host memory",
        (f"oom_kill counter: {evidence.oom_kills}", *words.work(evidence)),
    )


def _stopped_for(stop_reason: str, reason: str) -> Rule:
    def rule(evidence: Evidence) -> Finding | None:
        if evidence.stop_reason != stop_reason:
            return None
        detail = f": {evidence.stop_detail}" if evidence.stop_detail else ""
        return Finding(reason + detail, (f"outcome.json: stop_reason {stop_reason}", *words.work(evidence)))

    return rule


def _stopped_on_warning(evidence: Evidence) -> Finding | None:
    if evidence.stop_reason != "warned" or not reports_success(evidence):
        return None
    return Finding("stopped by itself when the scheduler warned of the end", words.work(evidence))


def _never_started(evidence: Evidence) -> Finding | None:
    if evidence.start_error is None:
        return None
    return Finding(f"the job could not be started: {evidence.start_error}", ("outcome.json: error",))


def _lost(evidence: Evidence) -> Finding | None:
    if not evidence.gone or evidence.outcome_seen:
        return None
    return Finding("the job vanished without an outcome: its node was lost or rebooted", words.work(evidence))


def _ended_from_outside(evidence: Evidence) -> Finding | None:
    if evidence.stop_reason != "terminated":
        return None
    return Finding("the job was told to stop, and nobody here asked for it", ("outcome.json: stop_reason terminated",))


def _plain_exception(evidence: Evidence) -> Finding | None:
    root = leading_root(evidence)
    if root is None or root.code != PLAIN_EXCEPTION or reports_success(evidence):
        return None
    where = f" at {root.where}" if root.where else ""
    who = "the preparation" if evidence.phase == "prepare" else "the code"
    return Finding(f"{who} raised {words.shortened(root.text)}{where}", words.work(evidence), root)


def _crashed(evidence: Evidence) -> Finding | None:
    if evidence.signal not in _CRASHES:
        return None
    return Finding(
        f"the job crashed with {words.signal_name(evidence.signal)}", (words.end(evidence), *words.work(evidence))
    )


def _prepare_failed(evidence: Evidence) -> Finding | None:
    if evidence.phase != "prepare" or not evidence.outcome_seen or reports_success(evidence):
        return None
    return Finding(
        f"the preparation failed with {words.end(evidence)}, before the job itself began", words.work(evidence)
    )


def _killed(evidence: Evidence) -> Finding | None:
    root = leading_root(evidence)
    if root is None or root.verdict != Verdict.UNKNOWN or reports_success(evidence):
        return None
    return Finding(
        f"a process was killed, and nothing says by whom: {words.shortened(root.text)}", words.work(evidence), root
    )


def _cascade_alone(verdict: Verdict, reason: str) -> Rule:
    """A cascade counts only where steps are missing and no root was found: its cause is then not in this log."""

    def rule(evidence: Evidence) -> Finding | None:
        if fatal(evidence, Role.ROOT) or (evidence.expected_steps and not missing_steps(evidence)):
            return None
        first = next((cascade for cascade in fatal(evidence, Role.CASCADE) if cascade.verdict), None)
        if first is None or first.verdict != verdict:
            return None
        return Finding(f"{reason}: {words.shortened(first.text)}", words.work(evidence), first)

    return rule


def _missing_output(evidence: Evidence) -> Finding | None:
    did_steps = bool(evidence.steps) and not missing_steps(evidence)
    if not (did_steps or reports_success(evidence)):
        return None
    lacks = words.lacking(evidence)
    if not lacks:
        return None
    return Finding(f"the job ended with {words.end(evidence)}, but " + ", ".join(lacks), words.work(evidence))


_V = Verdict

RULES: tuple[tuple[Verdict, Rule], ...] = (
    (_V.COMPLETED, _completed),
    (_V.UNKNOWN, _still_running),
    (_V.CANCELLED, _cancelled),
    (_V.PREEMPTED, _scheduler_says({"PREEMPTED"}, "preempted, says the scheduler")),
    (_V.PREEMPTED, _root_of(_V.PREEMPTED, "preempted")),
    (_V.NODE_FAILURE, _scheduler_says({"NODE_FAIL", "BOOT_FAIL"}, "the node failed, says the scheduler")),
    (_V.NODE_FAILURE, _root_of(_V.NODE_FAILURE, "the node failed")),
    (_V.HOST_OOM, _oom_killed),
    (_V.HOST_OOM, _scheduler_says({"OUT_OF_MEMORY"}, "out of host memory, says the scheduler")),
    (_V.HOST_OOM, _root_of(_V.HOST_OOM, "out of host memory")),
    (_V.GPU_OOM, _root_of(_V.GPU_OOM, "out of GPU memory")),
    (_V.TIME_LIMIT, _stopped_for("time_limit", "the time limit was reached")),
    (_V.TIME_LIMIT, _scheduler_says({"TIMEOUT", "DEADLINE"}, "the time limit was reached, says the scheduler")),
    (_V.TIME_LIMIT, _root_of(_V.TIME_LIMIT, "the time limit was reached")),
    (_V.PREEMPTED, _stopped_on_warning),
    (_V.HANG, _stopped_for("hang", "the job made no progress and was stopped")),
    (_V.CONFIG_ERROR, _never_started),
    (_V.CONFIG_ERROR, _root_of(_V.CONFIG_ERROR, "the configuration is wrong")),
    (_V.CODE_ERROR, _root_of(_V.CODE_ERROR, "the job failed")),
    (_V.NODE_FAILURE, _lost),
    (_V.NODE_FAILURE, _ended_from_outside),
    (_V.CODE_ERROR, _plain_exception),
    (_V.CODE_ERROR, _crashed),
    (_V.CONFIG_ERROR, _prepare_failed),
    (_V.UNKNOWN, _killed),
    (_V.NODE_FAILURE, _cascade_alone(_V.NODE_FAILURE, "a peer or its network was lost")),
    (_V.CODE_ERROR, _cascade_alone(_V.CODE_ERROR, "a process of the job failed")),
    (_V.MISSING_OUTPUT, _missing_output),
)


def _nothing_known(evidence: Evidence) -> Finding:
    if evidence.exit_code == 128 + signals.SIGKILL or evidence.signal == signals.SIGKILL:
        return Finding(f"ended with {words.end(evidence)}; nothing says who sent SIGKILL, or why", words.work(evidence))
    return Finding(
        f"ended with {words.end(evidence)} after {words.steps(evidence)}; nothing says why", words.work(evidence)
    )
