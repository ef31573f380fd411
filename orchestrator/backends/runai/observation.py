"""From a workload and what its attempt folder shows to the state of the attempt. Pure; time is an argument.

An attempt is one start of the wrapper: whoever has the claim ran it, and a container that starts later finds the claim
taken and does nothing. So a workload that goes back to waiting after the claim (a preemption) has ended the attempt. A
phase lags behind the node, by how much is not known, and the folder lags behind it too: neither is believed at first sight
where the other contradicts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.backends.base import JobState, JobStatus
from orchestrator.backends.runai.faults import one_line
from orchestrator.backends.runai.phases import Stage, stage
from trainer_ext.records import Outcome

TERMINATED = "terminated"
"""The wrapper's `stop_reason` where it was told to stop from outside."""
_LONGEST = 300
"""Characters of a reason."""


@dataclass(frozen=True)
class Patience:
    """Seconds."""

    settle_s: float = 60.0
    """A request whose answer was lost has either worked after this long, and is listed, or never will. Longer than the time
    limit of a request, which may still be under way when that is reached."""
    visible_s: float = 60.0
    """A file written on a node is seen here after this long at the latest (NFS keeps attributes for up to a minute)."""
    completing_s: float = 300.0
    """A workload whose attempt is over and that is still not called ended after this long counts as ended."""
    ask_again_s: float = 60.0
    """Between two requests to end the same workload."""


PATIENCE = Patience()


@dataclass(frozen=True)
class Folder:
    """What the attempt folder shows now."""

    claimed: bool
    outcome: Outcome | None
    heartbeat_at: float | None = None
    """By the node's clock."""

    @property
    def was_told_to_stop(self) -> bool:
        return self.outcome is not None and self.outcome.stop_reason == TERMINATED


@dataclass(frozen=True)
class Seen:
    """One workload at one look."""

    row: dict[str, Any] | None
    """As the API lists it; None: it positively has no such workload."""
    folder: Folder
    same_for_s: float
    """How long phase, claim, outcome and heartbeat have been seen as they are now."""

    @property
    def stage(self) -> Stage:
        return stage(self.row.get("phase")) if self.row is not None else Stage.UNKNOWN

    @property
    def is_deleted(self) -> bool:
        return self.row is not None and bool(self.row.get("deletedAt"))


@dataclass(frozen=True)
class Doubt:
    """An end that Run:ai's history may explain: PREEMPTED where it speaks of a preemption, else this."""

    otherwise: JobStatus


def judge(seen: Seen, patience: Patience) -> JobStatus | Doubt | None:
    """The state of the attempt; None where it cannot be told now."""
    if seen.row is None or seen.is_deleted:
        return _gone(seen, patience)
    over = seen.folder.outcome is not None
    match seen.stage:
        case Stage.ENDED:
            return _ended(seen, patience)
        case Stage.STOPPED:
            return _stopped(seen, patience)
        case Stage.WAITING if seen.folder.claimed or over:
            return _put_back(seen, patience)
        case Stage.WAITING:
            return JobStatus(JobState.QUEUED, reason=reason(seen.row))
        case _ if over and seen.same_for_s >= patience.completing_s:
            return JobStatus(JobState.ENDED)
        case Stage.ACTIVE:
            return JobStatus(JobState.RUNNING)
        case _:
            return None


def _ended(seen: Seen, patience: Patience) -> JobStatus | Doubt | None:
    """Completed or Failed: the folder says what it came to, as soon as it can be seen."""
    folder = seen.folder
    status = JobStatus(JobState.ENDED, reason=str((seen.row or {}).get("phase")).upper())
    if folder.outcome is not None and not folder.was_told_to_stop:
        return status
    if folder.outcome is None and seen.same_for_s < patience.visible_s:
        return None
    # told to stop or killed: a preemption whose second start, which found the claim taken, is what has ended
    return Doubt(status) if folder.claimed else status


def _stopped(seen: Seen, patience: Patience) -> JobStatus | None:
    folder = seen.folder
    if folder.outcome is None and not folder.claimed:
        said = reason(seen.row or {}) or "no reason given"
        return JobStatus(
            JobState.QUEUED, reason=f"stopped before it began ({said}); resume it in Run:ai", is_stuck=True
        )
    if folder.outcome is not None and not folder.was_told_to_stop:
        return JobStatus(JobState.ENDED)
    if folder.outcome is None and seen.same_for_s < patience.visible_s:
        return None
    return JobStatus(JobState.ENDED, reason="CANCELLED by a stop in Run:ai")


def _put_back(seen: Seen, patience: Patience) -> JobStatus | Doubt | None:
    """A waiting phase although somebody has begun: the phase is late, or the workload is to start anew."""
    folder = seen.folder
    if folder.was_told_to_stop:
        return JobStatus(JobState.ENDED, reason="PREEMPTED")
    if folder.outcome is not None:
        return JobStatus(JobState.ENDED) if seen.same_for_s >= patience.visible_s else JobStatus(JobState.RUNNING)
    if seen.same_for_s < 2 * patience.visible_s:  # the wrapper writes every second; a node may look away for a while
        return JobStatus(JobState.RUNNING)
    return Doubt(JobStatus(JobState.ENDED, reason="NODE_FAIL"))


def _gone(seen: Seen, patience: Patience) -> JobStatus | None:
    """Deleted by somebody or by Run:ai itself after its time, or never heard of."""
    folder = seen.folder
    if folder.outcome is not None and not folder.was_told_to_stop:
        return JobStatus(JobState.ENDED)
    unseen = not seen.is_deleted or folder.claimed  # what was just made may be missing for a while, a file too
    if folder.outcome is None and unseen and seen.same_for_s < patience.visible_s:
        return None
    if folder.outcome is None and seen.stage is Stage.ENDED:  # it had ended, and its time here was over
        return JobStatus(JobState.ENDED, reason=str((seen.row or {}).get("phase")).upper())
    if seen.is_deleted or folder.outcome is not None:
        return JobStatus(JobState.ENDED, reason="CANCELLED by a deletion in Run:ai")
    return JobStatus(JobState.GONE)


def reason(row: dict[str, Any]) -> str | None:
    """Why the workload is where it is, in Run:ai's words: shortest first."""
    parts = [row.get("phaseReason"), row.get("phaseMessage")]
    for condition in _mappings(row.get("conditions")):
        if condition.get("status") == "False" and condition.get("message"):
            parts.append(condition["message"])
    for pending in _mappings(row.get("pendingSchedulingMessages")):
        parts.append(f"{pending.get('nodePool')}: {pending.get('userMessage') or pending.get('reason')}")
    said = "; ".join(dict.fromkeys(one_line(part) for part in parts if part))
    return said[:_LONGEST] or None


def _mappings(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
