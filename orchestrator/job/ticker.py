"""A piece of work repeated on a thread of its own, which can never hurt the job.

What it raises is printed once and otherwise ignored; when it blocks (a sick driver, a stalled file system) it blocks
nobody else, and is left behind at the end.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_WAIT_S = 2.0
"""How long to wait for the round that is under way when the work is stopped."""


class Ticker:
    def __init__(
        self, work: Callable[[], None], interval_s: float, name: str, *, stop_wait_s: float = STOP_WAIT_S
    ) -> None:
        self._work, self._interval_s, self._name, self._stop_wait_s = work, interval_s, name, stop_wait_s
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._complained = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """At once, then every interval, and once more when the block is left: some counters outlive the job."""
        self._start()
        try:
            yield
        finally:
            self._stop.set()
            if self._thread is not None:
                self._thread.join(self._stop_wait_s)

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return  # it still hangs in its last round; a second one would hang as well
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = False
        while True:
            try:
                self._work()
            except Exception as error:  # whatever it is, the job goes on
                self._complain(error)
            if last:
                return
            last = self._stop.wait(self._interval_s)

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            print(f"orchestrator.job: {self._name}: {type(error).__name__}: {error}", file=sys.stderr)
