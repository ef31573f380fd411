"""The claim: of all wrappers that were ever started for one attempt, exactly one runs it.

A submission whose reply was lost may be repeated, and a scheduler may start a job twice. Creating `claim` with O_EXCL
decides in the file system who runs; it is never deleted, so an attempt is run once and for all.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

from trainer_ext.records import Claim

ENV_NODES = ("ORCHESTRATOR_NODE", "SLURMD_NODENAME")
"""Variables with the scheduler's own name for the node, which need not be its host name; the first that is set counts."""


def own_claim(token: str, now: float, node: str = "") -> Claim:
    """The claim of this process."""
    process = psutil.Process()
    return Claim(
        token=token,
        host=socket.gethostname(),
        pid=process.pid,
        process_started_at=process.create_time(),
        time=now,
        node=node,
    )


def node_name(environ: Mapping[str, str]) -> str:
    """The scheduler's name for this node; empty where it has none."""
    return next((environ[name] for name in ENV_NODES if environ.get(name)), "")


def take(path: Path, claim: Claim) -> bool:
    """Create the claim file; False when somebody else did.

    Raises:
        OSError: the folder is not writable or the disk is full; then no claim is left behind.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(claim.to_json())
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def read(path: Path) -> Claim | None:
    """The claim, or None where there is none or its writer died between creating and filling it.

    Raises:
        OSError: the file exists and cannot be read.
    """
    try:
        return Claim.from_json(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
