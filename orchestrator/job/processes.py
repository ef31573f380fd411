"""Finding and ending the processes of an attempt.

The wrapper, a subreaper, ends its descendants: nothing the job started can leave them. When the wrapper was killed
itself, the backend goes by the environment: a process belongs to an attempt when it was started with the attempt's
token, or descends from one that was (Ray's workers overwrite their environment with a title).
Session and process group ids are no evidence: after a reboot they name somebody else's processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from orchestrator.clock import Clock
from trainer_ext.records import ENV_ATTEMPT_TOKEN

PROC = Path("/proc")
KILL_WAIT_S = 5.0
"""How long a process may take to disappear after SIGKILL."""
_POLL_S = 0.02


def carries_token(pid: int, token: str, proc: Path = PROC) -> bool:
    """Whether the environment that process `pid` was started with names the attempt. False for zombies."""
    entry = f"{ENV_ATTEMPT_TOKEN}={token}".encode()
    try:
        return entry in (proc / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False  # gone, or another user's: not ours


def pids_with_token(token: str, proc: Path = PROC) -> list[int]:
    """All processes that were started with the attempt's token, ascending."""
    if not proc.is_dir():
        return []
    return sorted(int(p.name) for p in proc.iterdir() if p.name.isdigit() and carries_token(int(p.name), token, proc))


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs. A zombie does not: its parent may never reap it (PID 1 of a container often does not)."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def of_attempt(token: str) -> list[psutil.Process]:
    """Living processes of an attempt, without this process and those above it."""
    roots = []
    for pid in pids_with_token(token):
        try:
            roots.append(psutil.Process(pid))
        except psutil.Error:
            continue
    found = {process for root in roots for process in (root, *descendants(root))}
    return [process for process in found - _own_line() if is_alive(process)]


def end_all(
    find: Callable[[], Iterable[psutil.Process]], *, grace_s: float, clock: Clock, kill_wait_s: float = KILL_WAIT_S
) -> list[psutil.Process]:
    """Terminate whatever `find` keeps finding, and kill what is left after `grace_s` seconds.

    Returns:
        what survived even that (a process stuck in a driver); empty when nothing runs any more.
    """
    kill_at = clock.now() + grace_s
    give_up_at = kill_at + kill_wait_s
    asked: set[psutil.Process] = set()
    while found := [process for process in find() if is_alive(process)]:
        now = clock.now()
        if now >= give_up_at:
            return found
        for process in found:
            if now >= kill_at:
                _send(process.kill)
            elif process not in asked:
                asked.add(process)
                _send(process.terminate)
        clock.sleep(_POLL_S)
    return []


def _send(deliver: Callable[[], None]) -> None:
    with suppress(psutil.Error):  # it ended by itself, or is not ours to end
        deliver()


def _own_line() -> set[psutil.Process]:
    own = psutil.Process()
    return {own, *own.parents()}
