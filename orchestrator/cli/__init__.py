"""The command line: a table of verbs, one file each, imported only when it is the one asked for.

A verb's module has `add_arguments(parser)` and `run(args) -> int`. Exit codes: 0 every point succeeded, warnings included;
1 some point failed; 2 bad usage or sweep file; 3 stopped by a budget or a ceiling; 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence

from orchestrator.errors import EXIT_BAD_USAGE, EXIT_INTERRUPTED, EXIT_SUCCEEDED, OrchestratorError

PROGRAM = "python -m orchestrator"

VERBS = {
    "sweep": "expand a sweep file, run every point, and write the report",
    "plan": "show what a sweep file expands to, and start nothing",
    "status": "points of a sweep, their verdicts and attempts",
    "watch": "follow a sweep until its end, whoever drives it",
    "resume": "go on with a sweep whose orchestrator stopped",
    "cancel": "end a sweep's jobs and start no more of its points",
    "rerun": "try a point that failed or was cancelled again, afresh",
    "why": "the evidence that led to a point's verdict",
    "logs": "the console log of a point",
    "collect": "judge runs that someone else started",
    "reclassify": "judge a sweep's attempts again after a pattern changed",
    "report": "write a sweep's report again from stored evidence",
    "ui": "open MLflow on a sweep",
    "doctor": "check this machine, the state folder and the packages",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code and never raises for a user's mistake."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 gets an escape, not our traceback
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(words)
    except OrchestratorError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SUCCEEDED
    except OSError as error:  # a full disk, a folder that may not be written, a mount that went away
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_USAGE


def _run(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(overview(), flush=True)
        return EXIT_SUCCEEDED if words else EXIT_BAD_USAGE
    verb = words[0]
    if verb not in VERBS:
        return _unknown(verb)
    module = importlib.import_module(f"orchestrator.cli.{verb}")
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} {verb}", description=VERBS[verb].capitalize() + ".")
    module.add_arguments(parser)
    return int(module.run(parser.parse_intermixed_args(words[1:])))


def overview() -> str:
    lines = [f"usage: {PROGRAM} VERB [arguments]", "", "From a sweep file to a finished report.", ""]
    lines += [f"  {verb:11}{text}" for verb, text in VERBS.items()]
    return "\n".join([*lines, "", f"`{PROGRAM} VERB --help` explains one verb."])


def _unknown(verb: str) -> int:
    near = difflib.get_close_matches(verb, VERBS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; verbs: {', '.join(VERBS)}"
    print(f"error: unknown verb {verb!r}{hint}", file=sys.stderr)
    return EXIT_BAD_USAGE
