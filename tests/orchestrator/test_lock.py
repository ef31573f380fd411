"""The sweep's lock: one holder, given back by the kernel when the holder dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from orchestrator.lock import SweepLock, seen_held

HOLD = "import sys, time; from pathlib import Path; from orchestrator.lock import SweepLock; "
HOLD += "lock = SweepLock(Path(sys.argv[1])); assert lock.acquire(); print('held', flush=True); time.sleep(60)"


def test_only_one_holds_it_and_it_is_free_after_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "sweeps" / "s" / ".lock"
    path.parent.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        mine = SweepLock(path)
        assert not mine.acquire()
        assert mine.holder() == other.pid
        assert seen_held(path)
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert seen_held(path) is False
    assert mine.acquire()
    assert mine.holder() == os.getpid()
    mine.release()


def test_a_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    sleep = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    with SweepLock(path) as lock:
        assert lock.held
        child = subprocess.Popen(sleep, close_fds=False, stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        free = SweepLock(path)
        taken = free.acquire()
        free.release()
        child.kill()
    assert taken


def test_a_lock_that_nobody_ever_took_is_not_held_and_without_the_kernels_list_nothing_is_known(tmp_path: Path) -> None:
    assert seen_held(tmp_path / "none") is False
    assert seen_held(tmp_path / "none", tmp_path / "no list") is None
    (tmp_path / ".lock").touch()
    assert seen_held(tmp_path / ".lock", tmp_path / "no list") is None
