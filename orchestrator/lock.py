"""One orchestrator drives a sweep at a time: an advisory lock that the kernel drops when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self


class SweepLock:
    """`with SweepLock(path) as lock: if lock.held: ...`; never blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(self) -> bool:
        """Take the lock if it is free; True when this object holds it."""
        if self.held:
            return True
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # close-on-exec: a job that outlives us must not keep the lock
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        self._descriptor = descriptor
        return True

    def holder(self) -> int | None:
        """The pid that wrote itself into the file last."""
        try:
            return int(self._path.read_text())
        except (OSError, ValueError):
            return None

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def seen_held(path: Path, locks: Path = Path("/proc/locks")) -> bool | None:
    """Whether some process of this machine holds the lock, without trying it; None where the kernel does not say.

    Args:
        locks: the kernel's list: `1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF`; the sixth word ends with the inode.
    """
    try:
        held = locks.read_text()
        inode = str(path.stat().st_ino)
    except OSError:
        return False if locks.exists() and not path.exists() else None
    fields = [line.split() for line in held.splitlines()]
    return any(line[1] == "FLOCK" and line[5].rpartition(":")[2] == inode for line in fields if len(line) > 5)
