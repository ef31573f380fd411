"""`python -m tests.runai up`: a double of Run:ai's control plane to play with, until Ctrl-C.

Its workloads are processes of this machine, on pretended nodes of eight cards that are not there.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

from tests.runai.plane import ControlPlane
from tests.runai.server import Server

PORT = 8089


def main(words: list[str]) -> int:
    if words != ["up"]:
        print(__doc__, file=sys.stderr)
        return 2
    port = int(os.environ.get("RUNAI_PORT", PORT))
    folder = Path(tempfile.mkdtemp(prefix="runai-double-"))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with Server(ControlPlane(folder), port) as server:
            print(said(server), flush=True)
            stop.wait()
    except OSError as error:
        print(f"port {port}: {error.strerror}; RUNAI_PORT chooses another one", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder)
    print("down; what ran on it has ended")
    return 0


def said(server: Server) -> str:
    """What to paste into another shell."""
    environ = {
        **server.environ,
        "RUNAI_IMAGE": "any",
        "RUNAI_PYTHON": sys.executable,
        "ORCHESTRATOR_PROFILE": "local",
    }
    nodes = ", ".join(f"{node.name} ({node.gpus} GPUs)" for node in server.plane.nodes)
    return "\n".join(
        [
            f"A double of Run:ai's control plane, with {nodes}. In another shell:",
            "",
            *(f"export {name}={shlex.quote(value)}" for name, value in environ.items()),
            "python -m orchestrator sweep sweeps/factor.yaml --backend runai",
            "",
            "Ctrl-C here ends it, and what runs on it.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
