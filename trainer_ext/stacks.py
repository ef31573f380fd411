"""Lets a process say where it stands when it is asked with SIGUSR1: the job wrapper asks before it ends a job that hangs."""

from __future__ import annotations

import faulthandler
import signal
from contextlib import suppress


def answer_with_stacks() -> None:
    """From now on SIGUSR1 prints the stacks of all threads to standard error, in whatever state Python is.

    Where there is no such signal, or no real standard error, it does nothing.
    """
    with suppress(AttributeError, RuntimeError, ValueError, OSError):
        faulthandler.register(signal.SIGUSR1, all_threads=True)
