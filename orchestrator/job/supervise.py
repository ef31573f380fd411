"""Waiting for one command while passing signals on.

Signals are blocked in every thread and fetched here, one at a time, with `sigtimedwait`: no handler runs in the middle
of anything, nothing polls, and a signal that arrived while no command was running waits for the next one.
SIGHUP stays blocked and is never fetched: a terminal that goes away does not end the job.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.job.stopping import Limits, Stop, next_deadline, react

TELLING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGUSR2})
"""Signals that end the job, or announce its end."""
_WAKING = TELLING | {signal.SIGCHLD}
_LONGEST_WAIT_S = 1.0


@dataclass(frozen=True)
class Ended:
    """How a command ended: an exit code, or the signal that killed it, or why it never started."""

    exit_code: int | None = None
    signal: int | None = None
    stop_reason: str | None = None
    stop_detail: str | None = None
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.exit_code == 0 and self.stop_reason is None


def supervise(
    child: subprocess.Popen[bytes],
    limits: Limits,
    ask: Callable[[], None],
    monotonic: Callable[[], float] = time.monotonic,
    *,
    hung: Callable[[float], str | None] = lambda _now: None,
    before_ending: Callable[[str], None] = lambda _why: None,
) -> Ended:
    """Wait for the end of `child`, ending it when we are told to, its time is over, or it is taken for dead.

    Args:
        ask: called once, before any signal.
        hung: asked about once a second, with the time: why the job is taken for dead, or None.
        before_ending: called once with that reason, before anything else happens to the job.
    """
    stop: Stop | None = None
    received: int | None = None
    while (status := reap(child)) is None:
        now, stopping = monotonic(), stop is not None
        why = hung(now) if stop is None and received is None else None
        if why is not None:
            before_ending(why)
            now = monotonic()
        stop, sent = react(stop, received, now, limits, why)
        if stop is not None and not stopping:
            ask()
        if sent is not None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, sent)
        received = _next_signal(min(_LONGEST_WAIT_S, max(0.0, next_deadline(stop, limits) - now)))
    if stop is None and received is not None:  # it died of its own, just as we were told to end it
        stop, _ = react(stop, received, monotonic(), limits)
    reason, detail = (stop.reason, stop.detail) if stop else (None, None)
    if status < 0:
        return Ended(signal=-status, stop_reason=reason, stop_detail=detail)
    return Ended(exit_code=status, stop_reason=reason, stop_detail=detail)


def reap(child: subprocess.Popen[bytes] | None = None) -> int | None:
    """Collect all ended children, adopted ones too.

    Returns:
        the exit code of `child` as subprocess counts (negative: a signal), or None while it runs.
    """
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if child is not None and ended[0] == child.pid:
                child.returncode = os.waitstatus_to_exitcode(ended[1])
    return child.returncode if child is not None else None


def _next_signal(timeout_s: float) -> int | None:
    """One of `TELLING` when it arrives in time; None after the time, or when a child changed its state."""
    arrived = signal.sigtimedwait(_WAKING, timeout_s)
    if arrived is None or arrived.si_signo == signal.SIGCHLD:
        return None
    return arrived.si_signo
