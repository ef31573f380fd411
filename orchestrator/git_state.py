"""Which code a sweep ran: commit, branch, uncommitted changes, remote, and whether the remote has the commit.

Everything is read with `git` under a timeout, takes no lock (`GIT_OPTIONAL_LOCKS=0`) and never asks for a password.
What git cannot tell in time is None; a sweep does not fail for it. Whether a commit was pushed is known as of the last
fetch or push: nothing here reaches the network.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from reports.snapshot import GitState

_TIMEOUT_S = 10.0
_QUIET = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


class Reply(NamedTuple):
    code: int
    stdout: bytes


Runner = Callable[[Sequence[str]], Reply | None]
"""Runs one command to its end; None when it is not installed or took too long."""


def run_command(command: Sequence[str]) -> Reply | None:
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_TIMEOUT_S, env={**os.environ, **_QUIET}, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Reply(done.returncode, done.stdout)


def asker(folder: Path, run: Runner) -> Callable[..., bytes | None]:
    """Asks git about the repository that holds `folder`; it gives the output, or None where git cannot tell."""

    def git(*arguments: str) -> bytes | None:
        reply = run(["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments])
        return reply.stdout if reply is not None and reply.code == 0 else None

    return git


def read_git_state(folder: Path, run: Runner = run_command) -> GitState | None:
    """State of the repository that holds `folder`; None outside one, before its first commit, or without git."""
    git = asker(folder, run)

    def line(*arguments: str) -> str | None:
        output = git(*arguments)
        return output.decode(errors="replace").strip() or None if output is not None else None

    commit = line("rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    branch = line("symbolic-ref", "--quiet", "--short", "HEAD")
    remote = (line("config", f"branch.{branch}.remote") if branch else None) or _first(line("remote"))
    url = line("remote", "get-url", remote) if remote else None
    holders = git("for-each-ref", "--count=1", f"--contains={commit}", f"refs/remotes/{remote}/") if remote else None
    dirty, changes = _uncommitted(git)
    return GitState(
        commit=commit,
        branch=branch,
        dirty=dirty,
        diff_sha256=changes,
        remote=remote,
        remote_url=without_credentials(url) if url else None,
        pushed=bool(holders.strip()) if holders is not None else None,
    )


def without_credentials(url: str) -> str:
    """A remote's address without user, password, query and fragment; `host:path` and plain paths keep their form."""
    if "://" not in url:
        return re.sub(r"^[^/@]*@(?=[^/]+:)", "", url)
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _uncommitted(git: Callable[..., bytes | None]) -> tuple[bool | None, str | None]:
    """Whether the tree differs from HEAD, and a hash of how: tracked changes and the names of untracked files."""
    status = git("status", "--porcelain=v1", "-z", "--untracked-files=normal")
    if status is None:
        return None, None
    if not status:
        return False, None
    diff = git("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD")
    return True, hashlib.sha256(status + diff).hexdigest() if diff is not None else None


def _first(lines: str | None) -> str | None:
    return lines.split("\n", 1)[0] if lines else None
