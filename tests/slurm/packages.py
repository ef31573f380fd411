"""Slurm, munge and MariaDB from Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = (
    "munge",
    "mariadb-server",
    "slurm-client",
    "slurm-wlm-basic-plugins",
    "slurmctld",
    "slurmd",
    "slurmdbd",
)
POLICY = Path("/usr/sbin/policy-rc.d")
"""Where it exits 101, Debian's packages start no daemons."""


def obstacle() -> str | None:
    """Why no cluster can be brought up on this machine, or None."""
    if os.geteuid() != 0:
        return "a Slurm cluster needs root: its node daemon puts jobs into control groups"
    if shutil.which("slurmctld") is None and shutil.which("apt-get") is None:
        return "Slurm is not installed, and this is not Debian: there is no apt-get to install it"
    return None


def missing() -> list[str]:
    command = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *PACKAGES]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    installed = {line.split()[0] for line in shown.splitlines() if line.endswith(" installed")}
    return [package for package in PACKAGES if package not in installed]


def install() -> None:
    """Install what is missing, and start none of it.

    Raises:
        RuntimeError: apt-get failed; the message holds its last words.
    """
    wanted = missing()
    if not wanted:
        return
    with _no_daemons():
        _apt("update")
        _apt("install", "--yes", "--no-install-recommends", *wanted)


def _apt(*words: str) -> None:
    # another apt-get may be at work on this machine
    command = ["apt-get", "--quiet", "--quiet", "--option", "DPkg::Lock::Timeout=120", *words]
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")


@contextmanager
def _no_daemons() -> Iterator[None]:
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
