"""When to send which signal to the job: a pure step function over signals received and time passed.

A job is asked by a file, which it may look for where it can stop well; when the notice is over, by a signal (SIGTERM, or SIGINT
where that is what we got); and killed when the grace is over. The first reason to stop is the one that is remembered.
A scheduler's warning (SIGUSR2) asks by the file alone: whoever warned will signal in time, or the time limit comes.
"""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, replace

TERMINATED = "terminated"
TIME_LIMIT = "time_limit"
WARNED = "warned"
HANG = "hang"


@dataclass(frozen=True)
class Stop:
    """The job is being ended. Times are on the same clock as `now`, and infinite once what they stand for was sent."""

    reason: str
    signal_at: float
    kill_at: float
    signal: int = signal.SIGTERM
    """What is sent at `signal_at`."""
    detail: str | None = None
    """What the reason was read from, for people."""


@dataclass(frozen=True)
class Limits:
    end_at: float = math.inf
    """When the time limit is over, on the same clock as `now`."""
    grace_s: float = 20.0
    """Between signalling and killing. Slurm and Kubernetes kill 30 s after their own SIGTERM; the outcome must fit in."""
    notice_s: float = 0.0
    """Between asking by the file and signalling: after a signal that we got, and before the end of the time limit."""


def react(
    stop: Stop | None, received: int | None, now: float, limits: Limits, hung: str | None = None
) -> tuple[Stop | None, int | None]:
    """One step. The first `Stop` that comes back means: ask by the file.

    Args:
        stop: what is under way, if anything.
        received: SIGTERM, SIGINT or SIGUSR2 that the wrapper got, or None.
        now: seconds on a clock that never goes back.
        hung: why the job is taken for dead, if it is. Such a job gets no notice: it looks for no file.

    Returns:
        what is under way now, and the signal to send to the job, or None.
    """
    if stop is not None and stop.signal_at == math.inf and now >= stop.kill_at:
        return replace(stop, signal_at=math.inf, kill_at=math.inf), signal.SIGKILL
    if received == signal.SIGUSR2:
        stop = stop or Stop(WARNED, limits.end_at, limits.end_at + limits.grace_s)
    elif received is not None and stop is not None:  # it has had its notice, or whoever signals again allows it none
        reason = TERMINATED if stop.reason == WARNED else stop.reason
        kill_at = stop.kill_at if stop.signal_at == math.inf and stop.reason != WARNED else now + limits.grace_s
        return Stop(reason, math.inf, kill_at), received
    elif received is not None:
        at = now + limits.notice_s
        stop = Stop(TERMINATED, at, at + limits.grace_s, received)
    if stop is None and now >= limits.end_at - limits.notice_s:
        stop = Stop(TIME_LIMIT, limits.end_at, limits.end_at + limits.grace_s)
    if stop is None and hung is not None:
        stop = Stop(HANG, now, now + limits.grace_s, detail=hung)
    if stop is not None and now >= stop.signal_at:
        reason = TIME_LIMIT if stop.reason == WARNED else stop.reason
        return replace(stop, reason=reason, signal_at=math.inf, kill_at=now + limits.grace_s), stop.signal
    return stop, None


def next_deadline(stop: Stop | None, limits: Limits) -> float:
    """When `react` has something to do without being signalled."""
    return limits.end_at - limits.notice_s if stop is None else min(stop.signal_at, stop.kill_at)
