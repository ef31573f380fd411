"""What the job of an attempt runs first, on the node: leave word of the job's id, then become the wrapper.

Slurm may start a job anew under the same id, by itself or because we asked it to run the point's next attempt there.
Every attempt has a folder of its own and runs once, so the job goes to the newest attempt that was handed to it; where
that one has run already, the wrapper finds the claim taken and ends at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

from orchestrator.backends.slurm.ticket import NEXT, STARTED
from trainer_ext.records import write_atomic


def run(
    attempt_dir: str,
    exec_: Callable[[str, list[str]], object] = os.execv,
    environ: MutableMapping[str, str] = os.environ,
) -> None:
    """Replace this process by the wrapper, so that the scheduler's signals reach it without anybody between."""
    folder = newest(Path(attempt_dir))
    with suppress(OSError), (folder / STARTED).open("x") as file:  # of two jobs, the first to come
        file.write(job_id(environ))
    if "CUDA_VISIBLE_DEVICES" in environ:
        # a cluster whose gres.conf detects no vendor names the cards to all of them, and verl's workers refuse two names
        environ.pop("ROCR_VISIBLE_DEVICES", None)
    exec_(sys.executable, [sys.executable, "-m", "orchestrator.job", str(folder)])


def newest(folder: Path) -> Path:
    """The last attempt in the chain that begins in `folder`."""
    passed = {folder}
    while (following := _next(folder)) is not None and following not in passed:
        passed.add(following)
        folder = following
    return folder


def hand_over(previous: Path, following: Path) -> None:
    """When the job that ran the attempt in `previous` is started again, it shall run the one in `following`."""
    write_atomic(previous / NEXT, str(following))


def job_id(environ: Mapping[str, str]) -> str:
    """As squeue writes it: 17, or 17_3 for a task of an array."""
    array = environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environ['SLURM_ARRAY_TASK_ID']}" if array else environ.get("SLURM_JOB_ID", "")


def _next(folder: Path) -> Path | None:
    try:
        return Path((folder / NEXT).read_text())
    except FileNotFoundError:
        return None
