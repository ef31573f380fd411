"""Submitting through submitit: it pickles what each job runs, writes the script and the array, and names the options.

Two things are done otherwise than submitit does by default. The pickles lie where the job looks for them before sbatch is
called, and the script itself gives them the job's id: if we die after sbatch, the job runs nevertheless. And sbatch gets a
time limit. submitit's own view of jobs is not used at all: it learns of a death minutes late, and takes NODE_FAIL for final.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from orchestrator.backends.slurm import entry
from orchestrator.backends.slurm.commands import CommandRunner, CommandTimeout, Reply
from orchestrator.errors import BackendError, Deferred, SubmitUncertain

FOLDER = "slurm"
"""In the attempt's folder (of an array: its first attempt's): script, pickles, and what the job prints before the wrapper
takes over."""
SBATCH_TIMEOUT_S = 60.0
SCRIPT = "submission.sh"

_NO_ROOM = ("MaxSubmit", "MaxJobs", "job submit limit", "MaxJobCount", "temporarily unable to accept")
"""Limits on the number of jobs (of a user, an account, a QOS, the cluster): there may be room later."""
_NEVER = ("MaxWall", "MaxTRESPerJob", "MaxCpu", "MaxNode", "MaxGRES", "MaxMem", "MinGRES", "MinCpu")
"""Limits on the size of one job, which come with the same last line."""
_NO_ANSWER = (
    "Unable to contact",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Connection",
    "timed out",
    "Communication",
    "Transport",
    "Unexpected message",
)


def submit(run: CommandRunner, folder: Path, attempt_dirs: Sequence[Path], parameters: Mapping[str, Any]) -> str:
    """Submit one job, or an array with a task for each attempt in order; returns the id.

    All tasks of an array may run at once: the planner submits no more than may (`max_parallel`), so that the points that wait
    can still learn from those that ran.

    Args:
        folder: for script, pickles and output; on storage that the nodes see.
        parameters: as `options.parameters` makes them.

    Raises:
        Deferred, BackendError: refused, for now or for good.
        SubmitUncertain: Slurm may or may not have taken it.
    """
    folder.mkdir(exist_ok=True)
    executor = _Executor(folder, run)
    executor.update_parameters(**parameters, array_parallelism=len(attempt_dirs), setup=[_own_pickle(folder)])
    if len(attempt_dirs) > 1:
        executor.parameters["map_count"] = len(attempt_dirs)
    return executor.submit_prepared([DelayedSubmission(entry.run, str(attempt)) for attempt in attempt_dirs])


class _Executor(SlurmExecutor):  # type: ignore[misc]
    def __init__(self, folder: Path, run: CommandRunner) -> None:
        # exec: no shell stays between Slurm and the interpreter, so that signals reach it and its end is the job's
        super().__init__(folder, python="exec " + shlex.quote(sys.executable))
        self._run = run

    @classmethod
    def affinity(cls) -> int:
        """submitit looks for srun here; we find out from sbatch whether there is a cluster."""
        return 2

    def submit_prepared(self, jobs: Sequence[DelayedSubmission]) -> str:
        for index, job in enumerate(jobs):
            job.set_timeout(self.parameters.get("time") or 0, self.max_num_timeout)
            job.dump(self.folder / f"{index}.pkl")
        script = self.folder / SCRIPT
        script.write_text(self._make_submission_file_text(self._submitit_command_str, ""))
        try:
            reply = self._run(self._make_submission_command(script), SBATCH_TIMEOUT_S)
        except CommandTimeout as error:
            raise SubmitUncertain(f"{error}; the job may have been accepted") from error
        if not reply.ok:
            raise refusal(reply)
        try:
            return str(self._get_job_id_from_submission_command(reply.out))
        except FailedSubmissionError as error:
            raise SubmitUncertain(f"sbatch answered {reply.out.strip()!r}") from error


def refusal(reply: Reply) -> BackendError:
    """What a failed sbatch means: no room now, no answer, or no."""
    said = reply.complaint
    if any(words in said for words in _NO_ANSWER):
        return SubmitUncertain(f"sbatch: {said}")
    if any(words in said for words in _NO_ROOM) and not any(words in said for words in _NEVER):
        return Deferred(f"sbatch: {said}")
    return BackendError(f"sbatch: {said}")


def _own_pickle(folder: Path) -> str:
    """The script's line that lays the pickle where submitit looks for it: under the job's id, known only there."""
    task = "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}}"
    where = shlex.quote(str(folder))
    return f'job="{task}"; cp {where}/"${{SLURM_ARRAY_TASK_ID:-0}}".pkl {where}/"${{job:-$SLURM_JOB_ID}}"_submitted.pkl'
