"""Starting one command of the job so that it can neither outlive the wrapper unseen nor escape it.

Three links hold it (the last two on Linux only):
- its own session and process group, so that a signal reaches all of it and none of ours;
- a parent-death signal: a wrapper that is killed with SIGKILL takes the command along, rather than leave it training
  where nobody looks. It covers the command itself; what that started is found by its token (`processes.py`);
- the wrapper is a subreaper: whatever the command leaves behind becomes the wrapper's child, not init's.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trainer_ext.records import ENV_ATTEMPT_DIR, ENV_ATTEMPT_TOKEN, ENV_POOL, AttemptSpec

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Loaded here because between fork and exec there is no loading of libraries.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def environment(spec: AttemptSpec, folder: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """The job's environment: ours, then the attempt's own, then the variables of the contract."""
    merged = {**inherited, **spec.env, "PYTHONUNBUFFERED": "1"}
    merged[ENV_ATTEMPT_DIR] = str(folder)
    merged[ENV_ATTEMPT_TOKEN] = spec.token
    if spec.pool is not None:
        merged[ENV_POOL] = spec.pool
    return merged


def adopt_orphans() -> None:
    """Make this process the parent of whatever its descendants leave behind."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def start(command: Sequence[str], *, folder: Path, environ: Mapping[str, str], console: int) -> subprocess.Popen[bytes]:
    """Start a command in the attempt folder with both outputs on the descriptor `console`.

    No pipe: what was printed is in the file even when the wrapper dies first. No thread of ours may run meanwhile.

    Raises:
        OSError: the command cannot be started.
    """
    return subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        start_new_session=True,
        preexec_fn=_bind_to(os.getpid()),  # runs right after fork; it only makes system calls
    )


def _bind_to(parent: int) -> Callable[[], None]:
    def bind() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the wrapper's mask would make the job deaf
        if _LIBC is None:
            return
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the link was set
            os._exit(1)

    return bind
