"""Host memory of a rank and of the job's processes on its node. Pinned memory counts: CUDA maps it as shared memory.

A rank's own peak is exact, because the kernel keeps it. That of a whole node is sampled: nobody keeps the largest sum of many
processes. A control group would, but it may be shared (a workstation's login session), and its peak counts the page cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import psutil

CPU_SHARE = 0.01
"""Share of one core that each of the dear readings may cost."""
_RESET_PEAK = "5"
"""Written to /proc/PID/clear_refs it makes the peak begin anew, and does nothing else: see proc_pid_clear_refs(5)."""

T = TypeVar("T")


def take_resident_peak(process: Path = Path("/proc/self")) -> int:
    """Most memory, in bytes, that this process has held since the last call.

    Files that are mapped count as far as they are in memory, so code that several processes run counts in each of them.
    A kernel that cannot begin a peak anew gives that of the whole life; one that keeps none, what is held now.
    """
    status = _kib_by_name((process / "status").read_text())
    with suppress(OSError):
        (process / "clear_refs").write_text(_RESET_PEAK)
    return 1024 * status.get("VmHWM", status["VmRSS"])


def job_root(process: psutil.Process) -> psutil.Process:
    """The process that started Ray on this node, seen from one of Ray's workers: the parent of the raylet above it.

    That is the raylet itself where its parent has ended and init took its place. Outside Ray it is the process given.
    """
    for ancestor in process.parents():
        if ancestor.name() == "raylet":
            parent = ancestor.parent()
            return ancestor if parent is None or parent.pid == 1 else parent
    return process


class Rationed(Generic[T]):
    """A function whose last answer stands until a new one stays below a share of one core, in CPU time."""

    def __init__(
        self,
        function: Callable[[], T],
        share: float = CPU_SHARE,
        *,
        cpu: Callable[[], float] = time.thread_time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._function, self._share, self._cpu, self._monotonic = function, share, cpu, monotonic
        self._next_at = -float("inf")
        self._answer: T

    def __call__(self) -> T:
        if self._monotonic() >= self._next_at:
            begun = self._cpu()
            self._answer = self._function()
            self._next_at = self._monotonic() + (self._cpu() - begun) / self._share
        return self._answer


class ProcessTree:
    """What a process and all below it hold; calling it gives bytes. Pages that several of them share count once.

    Resident sizes cost nothing to read, and count a shared page in every process. Proportional sizes count it once, and are
    dear: the kernel walks every page table. So the first are read each time, and what of them is counted elsewhere too is
    measured as often as the ration allows. A process that came since counts whole; so does one that nobody may look into.

    Args:
        processes: ids of the processes to add up; asked only as often as the ration allows.
        cpu, monotonic: as in `Rationed`.
    """

    def __init__(
        self,
        processes: Callable[[], list[int]],
        *,
        proc: Path = Path("/proc"),
        cpu: Callable[[], float] = time.thread_time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc = proc
        self._pids = Rationed(processes, cpu=cpu, monotonic=monotonic)
        self._counted_elsewhere = Rationed(self._measure_sharing, cpu=cpu, monotonic=monotonic)

    @classmethod
    def below(cls, root: psutil.Process) -> ProcessTree:
        """The tree of a process that runs."""

        def pids() -> list[int]:
            with suppress(psutil.NoSuchProcess):
                return [root.pid, *(child.pid for child in root.children(recursive=True))]
            return []

        return cls(pids)

    def __call__(self) -> int:
        elsewhere = self._counted_elsewhere()
        return sum(max(0, self._resident(pid) - elsewhere.get(pid, 0)) for pid in self._pids())

    def _measure_sharing(self) -> dict[int, int]:
        """Of each process's resident bytes, those that the others account for."""
        return {pid: self._resident(pid) - pss for pid in self._pids() if (pss := self._proportional(pid)) is not None}

    def _resident(self, pid: int) -> int:
        try:
            return int((self._proc / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:  # it has ended
            return 0

    def _proportional(self, pid: int) -> int | None:
        try:
            return 1024 * _kib_by_name((self._proc / str(pid) / "smaps_rollup").read_text())["Pss"]
        except (OSError, KeyError):  # it has ended, is someone else's, or the kernel does not tell
            return None


def _kib_by_name(text: str) -> dict[str, int]:
    """The sizes of a file in /proc, `VmRSS:   12 kB` a line."""
    rows = (line.split() for line in text.splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) == 3 and row[2] == "kB"}
