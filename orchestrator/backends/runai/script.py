"""What a container runs: a script in the attempt folder, so that the workload's own command stays two short words.

The server splits `args` by rules that no document gives, and takes only so many characters: everything that varies is in the
script or the environment, and the script's path holds nothing that any shell would split.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from orchestrator.errors import BackendError

NAME = "runai.sh"
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
RAY_PORT = 6379

_ONE = """\
#!/bin/sh
# Runs one attempt inside its container. The wrapper takes this process's place, so that it hears what the scheduler says.
export ORCHESTRATOR_NODE="${{ORCHESTRATOR_NODE:-$NODE_NAME}}"
exec {python} -m orchestrator.job {folder}
"""
_MANY = """\
#!/bin/sh
# Runs one attempt on {nodes} nodes: Ray on all of them, the wrapper on the master. Its end is the end of the master's
# container, and with it of Ray's head; a worker that lost its head has done its part.
export ORCHESTRATOR_NODE="${{ORCHESTRATOR_NODE:-$NODE_NAME}}"
if [ "${{RANK:-0}}" != 0 ]; then
  tries=0
  until {python} -m ray.scripts.scripts start --address="$MASTER_ADDR:{port}" --block; do
    [ -e {folder}/outcome.json ] && exit 0
    tries=$((tries + 1))
    [ "$tries" -ge {tries} ] && exit 1
    sleep "${{RUNAI_RETRY_S:-5}}"
  done
  exit 0
fi
{python} -m ray.scripts.scripts start --head --port={port} || exit 1
export RAY_ADDRESS=auto
exec {python} -m orchestrator.job {folder}
"""
_TRIES = 120
"""Of a worker to find the head: ten minutes."""


def text(folder: Path, python: str, nodes: int = 1) -> str:
    """The script.

    Args:
        folder: the attempt's, as the container sees it.
        python: an interpreter of the image that has this package.
    """
    words = {"folder": shlex.quote(str(folder)), "python": shlex.quote(python)}
    if nodes == 1:
        return _ONE.format(**words)
    return _MANY.format(**words, nodes=nodes, port=RAY_PORT, tries=_TRIES)


def argument(folder: Path) -> str:
    """The path of the script, as the workload's only argument.

    Raises:
        BackendError: the path needs quoting, and how Run:ai reads quotes is not known.
    """
    path = str(folder / NAME)
    if not _PLAIN.fullmatch(path):
        raise BackendError(
            f"{path}: jobs of Run:ai need a path of plain characters, without blanks; choose another --root"
        )
    return path
