"""When to send which signal to the job: a pure step function over signals received and time passed.

A job is asked first (SIGTERM, or SIGINT where that is what we got) and killed when the grace is over. The first reason
to stop is the one that is remembered; further signals are passed on without moving the deadline.
"""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, replace

TERMINATED = "terminated"
TIME_LIMIT = "time_limit"


@dataclass(frozen=True)
class Stop:
    """The job is being ended."""

    reason: str
    kill_at: float
    """On the same clock as `now`; infinite once the kill was sent."""


@dataclass(frozen=True)
class Limits:
    end_at: float = math.inf
    """When the time limit is over, on the same clock as `now`."""
    grace_s: float = 20.0
    """Between asking and killing. Slurm and Kubernetes kill 30 s after their own SIGTERM; the outcome must fit in."""


def react(stop: Stop | None, received: int | None, now: float, limits: Limits) -> tuple[Stop | None, int | None]:
    """One step.

    Args:
        stop: what is under way, if anything.
        received: SIGTERM or SIGINT that the wrapper got, or None.
        now: seconds on a clock that never goes back.

    Returns:
        what is under way now, and the signal to send to the job, or None.
    """
    if stop is not None and now >= stop.kill_at:
        return replace(stop, kill_at=math.inf), signal.SIGKILL
    if received is not None:
        return stop or Stop(TERMINATED, now + limits.grace_s), received
    if stop is None and now >= limits.end_at:
        return Stop(TIME_LIMIT, now + limits.grace_s), signal.SIGTERM
    return stop, None


def next_deadline(stop: Stop | None, limits: Limits) -> float:
    """When `react` has something to do without being signalled."""
    return limits.end_at if stop is None else stop.kill_at
