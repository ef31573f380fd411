"""Slurm, asked with its own commands from wherever they work: a login node, or a job. Remembers nothing that it needs.

One squeue a poll for all jobs; sacct only for those that squeue does not answer for. What cannot be seen now is unknown, and
an unknown job keeps its state.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.backends.base import JobRef, JobRequest, JobState, JobStatus
from orchestrator.backends.slurm import accounting, in_place, options, queue, states, submission
from orchestrator.backends.slurm.accounting import AccountingRow
from orchestrator.backends.slurm.cluster import Config, Partition, read_config, read_partitions
from orchestrator.backends.slurm.commands import CommandRunner, CommandTimeout, ask, run_command
from orchestrator.backends.slurm.finding import MARGIN_S, find
from orchestrator.backends.slurm.queue import QueueRow
from orchestrator.backends.slurm.ticket import Ticket, read_started, read_ticket
from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import BackendError, Deferred, Unobservable
from orchestrator.model import Pool
from orchestrator.paths import AttemptPaths
from trainer_ext.records import Outcome

HANDLE = re.compile(r"\d+(?:_\d+)?")
IDS_A_QUESTION = 400
"""Ids in one call of sacct; the rest is asked in further calls."""
VISIBLE_WITHIN_S = 60.0
"""A file written on a node is seen here after this long at the latest (NFS keeps attributes for up to a minute)."""
COMPLETING_S = 300.0
"""A job that has written its outcome and is still being cleared away after this long counts as ended: its node hangs."""
GONE_AFTER_S = 600.0
"""A job that neither squeue nor sacct knows, both answering, for this long will not turn up any more."""


class SlurmBackend:
    """Jobs on a Slurm cluster.

    Args:
        run: runs Slurm's commands.
    """

    name = "slurm"

    def __init__(self, run: CommandRunner = run_command, clock: Clock | None = None) -> None:
        self._run = run
        self._clock = clock or SystemClock()
        self._config: Config | None = None
        self._partitions: list[Partition] | None = None
        self._tickets: dict[str, Ticket] = {}
        self._named: dict[str, tuple[float, Sequence[QueueRow]]] = {}
        self._first_seen: dict[tuple[str, str], float] = {}
        """(handle, what was seen) -> since when."""

    # ---- submitting ------------------------------------------------------------------------------------------------

    def submit(self, request: JobRequest) -> str:
        asked = self._parameters(request, request.name, request.token)
        if request.after is not None and HANDLE.fullmatch(request.after.handle):
            ticket = in_place.prepare(self._run, request.after, request.attempt_dir, asked, self._clock.now())
            if ticket is not None and in_place.take_over(self._run, ticket, options.changes(asked)):
                return str(ticket.job)
        return self._sbatch([request], asked)[0]

    def submit_many(self, requests: Sequence[JobRequest]) -> dict[str, str | BackendError]:
        """Submit each, those of one shape as job arrays; by token, the handle or why there is none."""
        results: dict[str, str | BackendError] = {}
        again = [request for request in requests if request.after is not None]
        for request in again:
            results |= self._one(request)
        for group in options.same_shape([request for request in requests if request.after is None]):
            size = max(1, self.config().max_array_size - 1)
            for start in range(0, len(group), size):
                results |= self._array(group[start : start + size])
        return results

    def _one(self, request: JobRequest) -> dict[str, str | BackendError]:
        try:
            return {request.token: self.submit(request)}
        except BackendError as error:
            return {request.token: error}

    def _array(self, requests: Sequence[JobRequest]) -> dict[str, str | BackendError]:
        """One array; where there is no room for all of it, halves of it, so that a part may go."""
        if len(requests) == 1:
            return self._one(requests[0])
        tokens = " ".join(request.token for request in requests)
        comment = f"array-{hashlib.sha256(tokens.encode()).hexdigest()[:32]}"
        try:
            handles = self._sbatch(requests, self._parameters(requests[0], requests[0].name, comment))
        except Deferred:
            half = len(requests) // 2
            return self._array(requests[:half]) | self._array(requests[half:])
        except BackendError as error:
            return {request.token: error for request in requests}
        return {request.token: handle for request, handle in zip(requests, handles, strict=True)}

    def _sbatch(self, requests: Sequence[JobRequest], asked: dict[str, Any]) -> list[str]:
        """Write the tickets, then submit; the handles in order."""
        first, is_array = requests[0], len(requests) > 1
        ticket = Ticket(asked["job_name"], asked["comment"], self._clock.now(), fixed=options.fixed(asked))
        folders = [request.attempt_dir for request in requests]
        self._named.clear()
        try:
            for index, folder in enumerate(folders):
                replace(ticket, index=index if is_array else None).write(folder)
                self._tickets.pop(str(folder), None)
            job = submission.submit(self._run, first.attempt_dir / submission.FOLDER, folders, asked)
        except OSError as error:
            raise BackendError(f"{first.name}: cannot write {error.filename}: {error.strerror}") from error
        return [f"{job}_{index}" for index in range(len(requests))] if is_array else [job]

    def _parameters(self, request: JobRequest, name: str, comment: str) -> dict[str, Any]:
        asked = options.parameters(request, name, comment)
        if asked["partition"] is None and request.pool is not None and request.pool.name in self._partition_names():
            asked["partition"] = request.pool.name
        return asked

    def find(self, request: JobRequest) -> str | None:
        ticket = read_ticket(request.attempt_dir)
        if ticket is None:
            return None
        asked = self._parameters(request, ticket.name, ticket.comment)
        changes, now = options.changes(asked), self._clock.now()
        return find(self._run, self._queued, ticket, request.attempt_dir, changes, self.config(), now)

    def _queued(self, name: str) -> Sequence[QueueRow]:
        """squeue's rows of a name; the tasks of an array that are looked up one after another share an answer."""
        now = self._clock.now()
        asked_at, rows = self._named.get(name, (float("-inf"), ()))
        if not 0 <= now - asked_at < MARGIN_S:
            rows = queue.parse(ask(self._run, queue.command(name=name)))
            self._named[name] = (now, rows)
        return rows

    # ---- watching --------------------------------------------------------------------------------------------------

    def poll(self, jobs: Sequence[JobRef]) -> Mapping[str, JobStatus]:
        ours = [job for job in jobs if HANDLE.fullmatch(job.handle)]
        statuses = {job.handle: JobStatus(JobState.GONE) for job in jobs if not HANDLE.fullmatch(job.handle)}
        if not ours:
            return statuses
        rows = {row.id: row for row in queue.parse(ask(self._run, queue.command()))}
        missing: list[JobRef] = []
        for job in ours:
            with suppress(Unobservable):
                seen = self._in_queue(job, rows)
                if seen == "missing":
                    missing.append(job)
                elif isinstance(seen, JobStatus):
                    statuses[job.handle] = seen
        history = self._history(missing) if missing else {}
        for job in missing:
            with suppress(Unobservable):
                status = self._not_in_queue(job, rows, history)
                if status is not None:
                    statuses[job.handle] = status
        return statuses

    def _in_queue(self, job: JobRef, rows: Mapping[str, QueueRow]) -> JobStatus | str | None:
        """`missing` where squeue has no word about this start of the job."""
        ticket = self._ticket(job)
        row = self._row(job, ticket, rows)
        if row is None or row.restarts > ticket.restarts:
            return "missing"
        if row.restarts < ticket.restarts:
            return None
        if row.state == "COMPLETING" and self._since(job, "completing") >= COMPLETING_S and _has_outcome(job):
            return JobStatus(JobState.ENDED)
        return self._when_visible(job, states.of_queue(row))

    def _row(self, job: JobRef, ticket: Ticket, rows: Mapping[str, QueueRow]) -> QueueRow | None:
        """squeue's row of the job that runs the attempt: the one that was submitted, or a second one that came first."""
        row = rows.get(job.handle)
        if row is not None and not states.is_of_queue(row, ticket):
            row = None
        if row is not None and row.state not in states.ENDED:
            return row
        other = read_started(job.attempt_dir)
        if other in (None, job.handle) or other not in rows or ticket.job is not None:
            return row
        second = rows[other]
        return (
            second if second.name in (ticket.name, job.name) and second.comment in (ticket.comment, job.token) else row
        )

    def _when_visible(self, job: JobRef, status: JobStatus | None) -> JobStatus | None:
        """A wrapper exits 0 when its outcome is written; it counts as ended when that can be seen from here."""
        if status is None or status.state is not JobState.ENDED or status.reason != "COMPLETED":
            return status
        waited = self._since(job, "completed") >= VISIBLE_WITHIN_S
        return status if waited or _has_outcome(job) else None

    def _history(self, jobs: Sequence[JobRef]) -> dict[str, list[AccountingRow]] | None:
        """sacct's rows by job; None where it does not answer."""
        ids = sorted({job.handle.partition("_")[0] for job in jobs})
        found: dict[str, list[AccountingRow]] = {}
        for start in range(0, len(ids), IDS_A_QUESTION):
            try:
                text = ask(self._run, accounting.command(ids=ids[start : start + IDS_A_QUESTION]))
            except Unobservable:
                return None
            for row in accounting.parse(text):
                found.setdefault(row.id, []).append(row)
        return found

    def _not_in_queue(
        self, job: JobRef, rows: Mapping[str, QueueRow], history: Mapping[str, Sequence[AccountingRow]] | None
    ) -> JobStatus | None:
        ticket = self._ticket(job)
        starts = [
            row for row in (history or {}).get(job.handle, ()) if row.is_stub or states.is_of_accounting(row, ticket)
        ]
        status = states.of_accounting(starts, ticket)
        if status is not None:
            return self._when_visible(job, status)
        waited = self._since(job, "missing")
        unaccounted = history is None and not self._has_accounting()
        if self._row(job, ticket, rows) is not None:  # put back into the queue
            return states.put_back(_has_outcome(job)) if unaccounted or waited >= VISIBLE_WITHIN_S else None
        if _has_outcome(job):
            return JobStatus(JobState.ENDED)
        patience = VISIBLE_WITHIN_S if unaccounted else GONE_AFTER_S
        known_missing = unaccounted or history is not None
        return JobStatus(JobState.GONE) if known_missing and waited >= patience else None

    def cancel(self, job: JobRef) -> None:
        if not HANDLE.fullmatch(job.handle):
            return
        ids = {job.handle, read_started(job.attempt_dir) or job.handle}
        try:
            reply = self._run(["scancel", *sorted(ids)])
        except CommandTimeout as error:
            raise Unobservable(str(error)) from error
        if not reply.ok and not any(words in reply.err for words in ("Invalid job id", "already completing")):
            raise Unobservable(f"scancel: {reply.complaint}")

    # ---- the cluster -----------------------------------------------------------------------------------------------

    def pools(self) -> Sequence[Pool]:
        """One for each partition whose nodes have GPUs, the default one first; none where Slurm does not answer."""
        try:
            return [
                Pool(found.name, gpus=found.gpus, options={"partition": found.name})
                for found in self._all_partitions()
                if found.gpus
            ]
        except Unobservable:
            return []

    def config(self) -> Config:
        """What slurmctld is configured to; its defaults where it does not answer now."""
        if self._config is None:
            try:
                self._config = read_config(self._run)
            except Unobservable:
                return Config()
        return self._config

    def _has_accounting(self) -> bool:
        return self.config().has_accounting

    def _all_partitions(self) -> list[Partition]:
        if self._partitions is None:
            self._partitions = read_partitions(self._run)
        return self._partitions

    def _partition_names(self) -> set[str]:
        try:
            return {partition.name for partition in self._all_partitions()}
        except Unobservable:
            return set()

    def _ticket(self, job: JobRef) -> Ticket:
        key = str(job.attempt_dir)
        if key not in self._tickets:
            found = read_ticket(job.attempt_dir)
            if found is None:
                return Ticket(job.name, job.token, 0.0)
            self._tickets[key] = found
        return self._tickets[key]

    def _since(self, job: JobRef, what: str) -> float:
        """Seconds since this was first seen of the job."""
        now = self._clock.now()
        return now - self._first_seen.setdefault((job.handle, what), now)


def _has_outcome(job: JobRef) -> bool:
    path: Path = AttemptPaths(job.attempt_dir).outcome
    try:
        return Outcome.from_json(path.read_bytes()).token == job.token
    except (FileNotFoundError, ValueError):
        return False
    except OSError as error:
        raise Unobservable(f"cannot read {path}: {error}") from error
