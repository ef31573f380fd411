"""Slurm's commands as one function, for tests without a cluster: the scripts given to sbatch are really run, by bash.

What it answers is written as Slurm 22.05 writes it. `tests/slurm/` asks the real one.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from submitit.core.utils import DelayedSubmission

from orchestrator.backends.slurm import accounting, entry, queue
from orchestrator.backends.slurm.commands import CommandTimeout, Reply
from orchestrator.paths import AttemptPaths

KILL_WAIT_S = 2.0
CONFIG = """Configuration data as of 2026-11-21T09:28:00
AccountingStorageType   = accounting_storage/{storage}
MaxArraySize            = {max_array_size}
MaxJobCount             = 10000
MessageTimeout          = 10 sec
MinJobAge               = 300 sec
SLURM_VERSION           = 22.05.8
"""
PARTITIONS = (
    "h100*|up|gpu:h100:8|2|1-00:00:00|2000\nh200|up|gpu:h200:8|2|1-00:00:00|8000\ncpu|up|(null)|1|infinite|16000\n"
)
DOWN = Reply(1, err="slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
INVALID = Reply(1, err="slurm_load_jobs error: Invalid job id specified")


@dataclass
class Job:
    """One job, or one task of an array."""

    id: str
    script: Path
    options: dict[str, str]
    attempt_dir: Path | None
    submitted_at: float
    state: str = "PENDING"
    restarts: int = 0
    exit_status: int = 0
    """As wait(2) counts."""
    process: subprocess.Popen[bytes] | None = None
    cancelled_at: float | None = None
    held: bool = False
    reason: str = "None"
    """Why it waits."""
    rows: list[tuple[str, str, float]] = field(default_factory=list)
    """(state, exit code, submitted at) of earlier starts."""

    @property
    def is_over(self) -> bool:
        return self.state not in ("PENDING", "RUNNING", "COMPLETING")

    @property
    def code(self) -> str:
        return f"{self.exit_status >> 8}:{self.exit_status & 0x7F}"


@dataclass
class SlurmDouble:
    """A `CommandRunner`.

    Args:
        runs: False: no job ever starts by itself.
        play: see below.
    """

    now: Callable[[], float] = time.time
    runs: bool = True
    play: Callable[[Path], None] | None = None
    """Does in the attempt folder what its job would do; the script is not run then."""
    accounting: bool = True
    max_array_size: int = 1001
    jobs: dict[str, Job] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    ctld_is_down: bool = False
    dbd_is_down: bool = False
    loses_next_reply: bool = False
    answers: dict[str, Reply] = field(default_factory=dict)
    """Command -> what it answers instead."""
    room: int = 10**9
    """Jobs that a user may have submitted."""
    forgotten: set[str] = field(default_factory=set)
    """Jobs that slurmctld no longer has in memory."""

    def __call__(self, command: Sequence[str], timeout_s: float = 60.0) -> Reply:  # noqa: ARG002
        self.calls.append(list(command))
        name = command[0]
        if name in self.answers:
            return self.answers[name]
        if name == "sacct":
            return self._sacct(command)
        if self.ctld_is_down:
            return DOWN
        self.advance()
        match name:
            case "sbatch":
                return self._sbatch(Path(command[-1]))
            case "squeue":
                return Reply(0, "".join(self._line(job) for job in self._wanted(command)))
            case "scancel":
                return self._scancel(command[1:])
            case "sinfo":
                return Reply(0, PARTITIONS)
        return self._scontrol(command[1:])

    def asked(self, name: str) -> list[list[str]]:
        return [call for call in self.calls if call[0] == name]

    def end(self, id_: str, state: str, exit_status: int = 0) -> None:
        """The job ends without having run."""
        self.jobs[id_].state, self.jobs[id_].exit_status = state, exit_status

    def put_back(self, id_: str, word: str) -> None:
        """Slurm starts the job anew, later."""
        job = self.jobs[id_]
        job.rows.append((word, job.code, job.submitted_at))
        job.state, job.exit_status, job.process = "PENDING", 0, None
        job.restarts, job.submitted_at = job.restarts + 1, self.now()

    def forget(self, *ids: str) -> None:
        self.forgotten.update(ids)

    def close(self) -> None:
        for job in self.jobs.values():
            if job.process is not None and job.process.poll() is None:
                job.process.kill()
                job.process.wait()

    # ---- what the jobs do ------------------------------------------------------------------------------------------

    def advance(self) -> None:
        for job in self.jobs.values():
            if job.process is None and job.state == "PENDING" and self.runs and not job.held:
                self._start(job)
            if job.process is not None and not job.is_over:
                self._look(job, job.process)

    def _start(self, job: Job) -> None:
        array, _, task = job.id.partition("_")
        if self.play is not None:
            first = DelayedSubmission.load(job.script.parent / f"{task or 0}.pkl").args[0]
            self.play(entry.newest(Path(first)))
            job.state = "COMPLETED"
            return
        ids = {"SLURM_JOB_ID": job.id} if not task else {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": task}
        environ = {**os.environ, "SLURM_JOB_ID": array, **ids, "SLURM_RESTART_COUNT": str(job.restarts)}
        with (job.script.parent / f"{job.id}.out").open("ab") as out:
            job.process = subprocess.Popen(["bash", str(job.script)], env=environ, stdout=out, stderr=out)

    def _look(self, job: Job, process: subprocess.Popen[bytes]) -> None:
        status = process.poll()
        if status is None:
            if job.cancelled_at is not None:
                job.state = "COMPLETING"
                if time.monotonic() - job.cancelled_at > KILL_WAIT_S:
                    process.kill()
            elif job.attempt_dir is None or AttemptPaths(job.attempt_dir).claim.exists():
                job.state = "RUNNING"
            return
        job.exit_status = -status if status < 0 else status << 8
        ended = "COMPLETED" if status == 0 else "FAILED"
        job.state = "CANCELLED" if job.cancelled_at is not None else ended

    # ---- the commands ----------------------------------------------------------------------------------------------

    def _sbatch(self, script: Path) -> Reply:
        options = read_options(script)
        tasks = int(options["array"].partition("%")[0].partition("-")[2]) + 1 if "array" in options else 0
        if len([job for job in self.jobs.values() if not job.is_over]) + max(1, tasks) > self.room:
            error = "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: "
            return Reply(
                1, err=error + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
            )
        number = len({id_.partition("_")[0] for id_ in self.jobs}) + 1
        for id_ in [f"{number}_{task}" for task in range(tasks)] or [str(number)]:
            folder = script.parent.parent if not tasks else None
            self.jobs[id_] = Job(id_, script, options, folder, self.now())
        if self.loses_next_reply:
            self.loses_next_reply = False
            raise CommandTimeout("sbatch did not answer within 60 s")
        return Reply(0, f"Submitted batch job {number}\n")

    def _wanted(self, command: Sequence[str]) -> list[Job]:
        known = [job for job in self.jobs.values() if job.id not in self.forgotten]
        if "--name" not in command:
            return known
        name = command[command.index("--name") + 1]
        return [job for job in known if job.options["job-name"] == name]

    def _line(self, job: Job) -> str:
        values = {
            "JobArrayID": job.id,
            "State": job.state,
            "RestartCnt": str(job.restarts),
            "SubmitTime": stamp(job.submitted_at),
            "exit_code": str(job.exit_status),
            "DerivedEC": "0",
            "Name": job.options["job-name"],
            "Comment": job.options["comment"],
            "Reason": "job requeued in held state" if job.held else job.reason,
        }
        return "".join(f"{values[name][:width]:{width}}|" for name, width in queue.FIELDS) + "\n"

    def _sacct(self, command: Sequence[str]) -> Reply:
        if not self.accounting or self.dbd_is_down:
            return Reply(1, err="sacct: error: Problem talking to the database: Connection refused")
        if "--jobs" in command:
            numbers = command[command.index("--jobs") + 1].split(",")
            jobs = [job for job in self.jobs.values() if job.id.partition("_")[0] in numbers]
        else:
            name = command[command.index("--name") + 1] if "--name" in command else None
            jobs = [job for job in self.jobs.values() if job.options["job-name"] == name]
        return Reply(0, "".join(self._rows(job) for job in jobs))

    def _rows(self, job: Job) -> str:
        text = ""
        for state, code, submitted in [*job.rows, (job.state, job.code, job.submitted_at)]:
            values = {
                "JobID": job.id,
                "JobName": job.options["job-name"],
                "Partition": job.options.get("partition", "h100"),
                "State": "CANCELLED by 0" if state == "CANCELLED" else state,
                "ExitCode": code,
                "DerivedExitCode": "0:0",
                "Submit": stamp(submitted),
                "Comment": "",
            }
            text += "|".join(values[name] for name in accounting.FIELDS) + "\n"
        return text

    def _scancel(self, ids: Sequence[str]) -> Reply:
        for id_ in ids:
            job = self.jobs.get(id_)
            if job is None or id_ in self.forgotten:
                return Reply(1, err=f"scancel: error: Kill job error on job id {id_}: Invalid job id specified")
            if job.process is None:
                job.state = job.state if job.is_over else "CANCELLED"
            elif job.process.poll() is None:
                job.cancelled_at = job.cancelled_at or time.monotonic()
                job.process.send_signal(signal.SIGTERM)
        return Reply(0)

    def _scontrol(self, words: Sequence[str]) -> Reply:
        if list(words) == ["show", "config"]:
            storage = "slurmdbd" if self.accounting else "none"
            return Reply(0, CONFIG.format(storage=storage, max_array_size=self.max_array_size))
        job = self.jobs.get(words[1].removeprefix("job=") if words[0] == "update" else words[-1])
        if job is None or job.id in self.forgotten:
            return INVALID
        match words[0]:
            case "--oneliner":
                return Reply(0, self._shown(job))
            case "requeuehold":
                if not job.is_over:
                    return Reply(1, err=f"Requested operation is presently disabled for job {job.id}")
                self.put_back(job.id, "REQUEUED")
                job.held = True
            case "hold":
                job.held = True
            case "release":
                job.held = False
            case "update":
                job.options |= {key.lower(): value for key, _, value in (word.partition("=") for word in words[2:])}
        return Reply(0)

    def _shown(self, job: Job) -> str:
        return (
            f"JobId={job.id.partition('_')[0]} JobName={job.options['job-name']} UserId=root(0) Account=root QOS=normal "
            f"JobState={job.state} Reason=None Dependency=(null) Requeue=1 Restarts={job.restarts} BatchFlag=1 "
            f"ExitCode={job.code} Features=(null) WorkDir=jobs Comment={job.options['comment']}  StdIn=/dev/null "
        )


def read_options(script: Path) -> dict[str, str]:
    """The #SBATCH lines."""
    words = [shlex.split(line)[1] for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
    return {key.removeprefix("--"): value for key, _, value in (word.partition("=") for word in words)}


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%dT%H:%M:%S")
