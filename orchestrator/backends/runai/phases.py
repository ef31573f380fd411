"""Run:ai's phases as stages. Pure. A word that nobody has seen before says nothing, least of all that a job is over."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    WAITING = "waiting"
    """No container runs; one will."""
    ACTIVE = "active"
    """Containers run, or are being ended."""
    STOPPED = "stopped"
    """Suspended by somebody or by a limit of the project; can be resumed."""
    ENDED = "ended"
    UNKNOWN = "unknown"


STAGES = {
    "Creating": Stage.WAITING,
    "Initializing": Stage.WAITING,
    "Pending": Stage.WAITING,
    "Resuming": Stage.WAITING,
    "Running": Stage.ACTIVE,
    "Updating": Stage.ACTIVE,
    "Degraded": Stage.ACTIVE,
    "Stopping": Stage.ACTIVE,
    "Suspending": Stage.ACTIVE,
    "Deleting": Stage.ACTIVE,
    "Terminating": Stage.ACTIVE,
    "Stopped": Stage.STOPPED,
    "Suspended": Stage.STOPPED,
    "Completed": Stage.ENDED,
    "Failed": Stage.ENDED,
}
"""The 14 of the API but `Unknown`, and two that only the user interface shows. Degraded may become Running again."""


def stage(phase: object) -> Stage:
    """The stage of a phase; of anything else than a known word, unknown."""
    return STAGES.get(phase, Stage.UNKNOWN) if isinstance(phase, str) else Stage.UNKNOWN
