"""Whether an attempt did its work, by what it left behind: all steps, all score files, all of them readable.

Exit codes and scheduler states play no part. A job whose Ray shutdown crashed after the last step has done its work.
"""

from __future__ import annotations

from orchestrator.triage.evidence import Evidence, NpzFacts, Role, Signature, in_time

_OUTLIVED_BY = 2
"""Steps that must follow a root. One may: Ray's log monitor can print the step before a crash after the crash."""

_KILLED_FROM_OUTSIDE = frozenset({128 + 9, 128 + 15})

SUCCESS_WORDS = frozenset({"COMPLETED", "SUCCEEDED"})
FAILURE_WORDS = frozenset({"FAILED", "ERROR"})
"""What a scheduler says of a job with a non-zero exit code, and of nothing else."""


def missing_steps(evidence: Evidence) -> tuple[int, ...]:
    """Expected training steps that nothing shows, ascending; () where nobody knows how many were expected."""
    seen = set(evidence.steps)
    return tuple(step for step in range(1, (evidence.expected_steps or 0) + 1) if step not in seen)


def unreadable_npz(evidence: Evidence) -> tuple[NpzFacts, ...]:
    return tuple(file for file in evidence.npz if file.error is not None)


def missing_npz(evidence: Evidence) -> int:
    """Score files that are not there at all.

    Without a number of expected files, a run that wrote any is taken to write one a step.
    """
    if evidence.expected_npz is not None:
        return max(evidence.expected_npz - len(evidence.npz), 0)
    covered = {file.step for file in evidence.npz}
    if not evidence.npz or None in covered:
        return 0
    return len(set(evidence.steps) - covered)


def outputs_whole(evidence: Evidence) -> bool:
    return not missing_npz(evidence) and not unreadable_npz(evidence)


def is_complete(evidence: Evidence) -> bool:
    """All expected steps were logged and every score file is there and valid.

    Where nobody knows the number of steps, the job or its scheduler must report success, or at least nothing may speak
    of another end.
    """
    if not outputs_whole(evidence):
        return False
    if evidence.expected_steps:
        return not missing_steps(evidence)
    if reports_success(evidence):
        return bool(evidence.steps or evidence.npz or evidence.outcome_seen)
    return bool(evidence.steps) and _nothing_went_wrong(evidence)


def fatal(evidence: Evidence, role: Role) -> tuple[Signature, ...]:
    """Signatures of a role in the log that the job did not outlive, earliest first."""
    return tuple(
        signature
        for signature in in_time(evidence.signatures)
        if signature.role is role and signature.steps_after < _OUTLIVED_BY
    )


def reports_success(evidence: Evidence) -> bool:
    """The exit code is 0, and the scheduler does not contradict it."""
    return evidence.exit_code == 0 and not evidence.signal and evidence.scheduler_reason in (None, *SUCCESS_WORDS)


def reports_failure(evidence: Evidence) -> bool:
    """The exit code, the signal or the scheduler's word stand for a failure."""
    return bool(evidence.exit_code or evidence.signal) or evidence.scheduler_reason in FAILURE_WORDS


def _nothing_went_wrong(evidence: Evidence) -> bool:
    """Of a run whose length nobody knows: it ended by itself, and its log names no failure.

    A failure without a cause is taken for one of the shutdown, as happens to Ray, unless a signal from outside made it.
    """
    stopped = evidence.gone or evidence.cancel_requested or evidence.stop_reason
    from_outside = evidence.signal or evidence.oom_kills or evidence.exit_code in _KILLED_FROM_OUTSIDE
    known_word = evidence.scheduler_reason in (None, *SUCCESS_WORDS, *FAILURE_WORDS)
    failures = fatal(evidence, Role.ROOT) or fatal(evidence, Role.CASCADE)
    if evidence.outcome_seen or not evidence.ended:  # the wrapper's exit code is known, and was no success
        return False
    return known_word and not (stopped or from_outside or failures or evidence.log_truncated)
