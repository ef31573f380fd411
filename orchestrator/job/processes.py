"""Finding and ending the processes of an attempt.

The wrapper, a subreaper, ends its descendants: nothing the job started can leave them. When the wrapper was killed
itself, the backend looks for what it left behind. To an attempt belongs
- what was started with the attempt's token in its environment, and whatever descends from it;
- what sits in the attempt folder and is of the session that the wrapper made for the job. Ray's agents are found by
  nothing else: they overwrite their environment with a title, and their parents die with the wrapper.
A session id alone is no evidence: after a reboot it names somebody else's processes. Nor is the folder: a user may
stand in it.
"""

from __future__ import annotations

import os
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
    return [pid for pid in _pids(proc) if carries_token(pid, token, proc)]


def pids_of_session(session: int, folder: Path, proc: Path = PROC) -> list[int]:
    """All processes of a session whose working directory is `folder`, ascending."""
    place = os.path.realpath(folder)
    return [pid for pid in _pids(proc) if _session(pid, proc) == session and _working_directory(pid, proc) == place]


def _pids(proc: Path) -> list[int]:
    return sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit()) if proc.is_dir() else []


def _session(pid: int, proc: Path) -> int | None:
    """Field 6 of /proc/PID/stat; the fields are counted after the name, which may hold anything."""
    try:
        return int((proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return None


def _working_directory(pid: int, proc: Path) -> str | None:
    try:
        return os.readlink(proc / str(pid) / "cwd")
    except OSError:
        return None


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


def of_attempt(token: str, *, session: int | None = None, folder: Path | None = None) -> list[psutil.Process]:
    """Living processes of an attempt, without this process and those above it.

    Args:
        session: the job's session, which is the pid of its first process, where it is known together with
        folder: the attempt folder.
    """
    pids = set(pids_with_token(token))
    if session is not None and folder is not None:
        pids.update(pids_of_session(session, folder))
    roots = []
    for pid in pids:
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
