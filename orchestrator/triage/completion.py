"""Whether an attempt did its work, by what it left behind: all steps, all score files, all of them readable.

Exit codes and scheduler states play no part. A job whose Ray shutdown crashed after the last step has done its work.
"""

from __future__ import annotations

from orchestrator.triage.evidence import Evidence, NpzFacts, Role, Signature

_OUTLIVED_BY = 2
"""Steps that must follow a root. One may: Ray's log monitor can print the step before a crash after the crash."""

SUCCESS_WORDS = frozenset({"COMPLETED", "SUCCEEDED"})


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

    Where nobody knows the number of steps (somebody else's run), the steps that were logged must be all there is: either
    the job or its scheduler reports success, or nothing in the log stands for a failure.
    """
    if not evidence.steps and evidence.expected_steps != 0:
        return False
    if not outputs_whole(evidence):
        return False
    if evidence.expected_steps is not None:
        return not missing_steps(evidence)
    return _reports_success(evidence) or (
        evidence.ended and not evidence.gone and not evidence.outcome_seen and not fatal_roots(evidence) and _no_other_end(evidence)
    )


def fatal_roots(evidence: Evidence) -> tuple[Signature, ...]:
    """Roots in the log that the job did not outlive, earliest first; all of them where it outlived each."""
    roots = tuple(signature for signature in evidence.signatures if signature.role is Role.ROOT)
    return tuple(root for root in roots if root.steps_after < _OUTLIVED_BY) or roots


def _reports_success(evidence: Evidence) -> bool:
    return evidence.exit_code == 0 and not evidence.signal and evidence.scheduler_reason in (None, *SUCCESS_WORDS)
