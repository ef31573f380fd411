"""`python -m orchestrator.job ATTEMPT_DIR`.

Exit codes: 0 the outcome is written, or another wrapper has the claim; 1 no outcome could be written; 2 nothing to run.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

USAGE = "usage: python -m orchestrator.job ATTEMPT_DIR"


def main(arguments: list[str]) -> int:
    # Before the slower imports, so that a signal that comes now finds a wrapper that can pass it on (supervise.py).
    told = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, {*told, signal.SIGHUP, signal.SIGCHLD})
    from orchestrator.job.wrapper import WrapperError, run_attempt

    if len(arguments) != 1:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        run_attempt(Path(arguments[0]).absolute())
    except WrapperError as error:
        print(f"orchestrator.job: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
