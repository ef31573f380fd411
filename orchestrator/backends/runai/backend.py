"""Run:ai, asked over its REST API. Remembers nothing that it needs.

One listing a poll for all workloads; a single one is asked for only where the listing lacks it. What cannot be seen now is
unknown, and an unknown workload keeps its state.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from orchestrator.backends.base import JobRef, JobRequest, JobState, JobStatus
from orchestrator.backends.runai import finding, logs, observation, script, settings, ticket, words, workload
from orchestrator.backends.runai.client import TIMEOUTS, Client, Timeouts
from orchestrator.backends.runai.directory import Project, find_project, is_shown, node_pools
from orchestrator.backends.runai.faults import NotFound, Refused, Unauthorized
from orchestrator.backends.runai.folder import look_into
from orchestrator.backends.runai.lasting import Lasting
from orchestrator.backends.runai.observation import PATIENCE, Doubt, Patience, Seen
from orchestrator.backends.runai.phases import Stage, stage
from orchestrator.backends.runai.rows import Rows
from orchestrator.backends.runai.settings import Settings
from orchestrator.backends.runai.ticket import Ticket, read_ticket, same_place
from orchestrator.backends.runai.workload import Kind, workload_name
from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import (
    BackendError,
    Deferred,
    EnvironmentProblem,
    OrchestratorError,
    SubmitUncertain,
    Unobservable,
    UsageError,
)
from orchestrator.model import Pool
from orchestrator.runai_spec import RunaiSpec
from trainer_ext.records import write_atomic

HANDLE = re.compile(r"(training|distributed):([A-Za-z0-9-]{1,64})")


class RunaiBackend:
    """Workloads of one project.

    Args:
        settings: where to send them, and what they are given.
        client: the control plane.
    """

    name = "runai"

    def __init__(
        self, settings: Settings, client: Client, clock: Clock | None = None, patience: Patience = PATIENCE
    ) -> None:
        self.settings, self.client = settings, client
        self._clock, self.patience = clock or SystemClock(), patience
        self._project: Project | None = None
        self._lasting = Lasting(patience.visible_s)
        self._rows = Rows(client)
        self._asked_to_end: dict[str, float] = {}
        self._noted: dict[str, tuple[Any, ...]] = {}

    @classmethod
    def of(
        cls,
        spec: RunaiSpec,
        environ: Mapping[str, str] = os.environ,
        *,
        clock: Clock | None = None,
        transport: httpx.BaseTransport | None = None,
        timeouts: Timeouts = TIMEOUTS,
        patience: Patience = PATIENCE,
    ) -> RunaiBackend:
        """A backend as the sweep file and the environment describe it.

        Raises:
            EnvironmentProblem: they leave out what nobody can guess.
        """
        clock = clock or SystemClock()
        known = settings.resolve(spec, environ)
        client = Client(
            known.base_url,
            lambda: settings.credentials(spec, environ),
            clock,
            ca_file=spec.ca_file,
            transport=transport,
            timeouts=timeouts,
        )
        return cls(known, client, clock, patience)

    # ---- where jobs run --------------------------------------------------------------------------------------------

    @property
    def python(self) -> str:
        """The interpreter inside the image."""
        return self.settings.python

    def inside(self, path: Path) -> Path:
        """Where a container sees a path of this machine, from which it can run jobs.

        Raises:
            EnvironmentProblem: it does not see it, could not run a script there, or has no image.
        """
        inside = self.settings.inside(path)
        try:
            workload.image(self.settings)
            script.argument(inside)
        except BackendError as error:
            raise EnvironmentProblem(str(error)) from error
        return inside

    def project(self) -> Project:
        """The project, asked for once.

        Raises:
            UsageError: there is none such.
            BackendError: it could not be asked for.
        """
        if self._project is None:
            self._project = find_project(self.client, self.settings.project, self.settings.cluster)
        return self._project

    def pools(self) -> Sequence[Pool]:
        """One for each node pool whose nodes have GPUs, as far as these credentials may see nodes; the default one first.

        Raises:
            Unobservable: Run:ai could not be asked.
            UsageError, Refused: the credentials or the project are wrong, which no waiting mends.
        """
        found = node_pools(self.client, self.project().cluster)
        return [Pool(pool.name, pool.gpus, options={"node_pool": pool.name}) for pool in found if pool.gpus]

    # ---- submitting ------------------------------------------------------------------------------------------------

    def submit(self, request: JobRequest) -> str:
        try:
            project = self.project()
        except (Unobservable, Unauthorized, EnvironmentProblem) as error:
            raise Deferred(str(error)) from error  # nothing was asked for
        except UsageError as error:
            raise BackendError(str(error)) from error
        if request.after is not None:
            self._discard(request.after)
        try:
            ask = workload.ask(request, self.settings, project)
            path, text = workload.run_script(request, self.settings)
            write_atomic(path, text)
            Ticket(ask.body["name"], ask.kind.value, self._clock.now(), project.id, project.cluster).write(
                request.attempt_dir
            )
        except OSError as error:
            raise BackendError(f"{request.name}: cannot write {error.filename}: {error.strerror}") from error
        except EnvironmentProblem as error:
            raise BackendError(str(error)) from error
        try:
            answer = self.client.post(ask.kind.path, ask.body)
        except (Unauthorized, EnvironmentProblem) as error:
            raise Deferred(str(error)) from error
        except Refused as error:
            if not error.says_name_is_taken:
                raise
            return self._adopted(request, error)
        return self._handle(ask.kind, answer)

    def _handle(self, kind: Kind, answer: Any) -> str:
        id_ = answer.get("workloadId") if isinstance(answer, Mapping) else None
        handle = f"{kind.value}:{id_}"
        if not HANDLE.fullmatch(handle):
            raise SubmitUncertain(f"POST {kind.path} worked, but its answer names no workload")
        return handle

    def _adopted(self, request: JobRequest, refusal: Refused) -> str:
        """The workload that has the name: ours, since the name holds a digest of the token."""
        try:
            handle = self._look_up(request, read_ticket(request.attempt_dir))
        except finding.NotOurs:
            raise
        except OrchestratorError as error:
            raise SubmitUncertain(f"{refusal}; {error}") from error
        if handle is not None:
            return handle
        if refusal.speaks_of(workload_name(request.name, request.token)):
            raise SubmitUncertain(f"{refusal}; but no such workload is listed (yet)")
        raise refusal

    def find(self, request: JobRequest) -> str | None:
        asked = read_ticket(request.attempt_dir)
        if asked is None:
            return None
        try:
            self._check_place(request.attempt_dir)
            handle = self._look_up(request, asked)
        except Unobservable:
            raise
        except OrchestratorError as error:
            raise Unobservable(str(error)) from error
        age_s = abs(self._clock.now() - asked.time)  # by another machine's clock, perhaps
        if handle is None and age_s < self.patience.settle_s:
            raise Unobservable(
                f"no workload {asked.name} yet; a request may be under way for {self.patience.settle_s:g} s"
            )
        return handle

    def _look_up(self, request: JobRequest, asked: Ticket | None) -> str | None:
        """The handle of the workload that was asked for, by name."""
        name = asked.name if asked else workload_name(request.name, request.token)
        kind = Kind(asked.kind) if asked else Kind.TRAINING
        id_ = finding.find(self.client, self.project().id, name, kind, request.token)
        return f"{kind.value}:{id_}" if id_ else None

    def _discard(self, job: JobRef) -> None:
        """The last attempt's workload, where it waits for another start: it would find the claim taken."""
        match = HANDLE.fullmatch(job.handle)
        if match is None:
            return
        with suppress(OrchestratorError):
            row = self.client.get(f"{words.WORKLOADS}/{match[2]}")
            if isinstance(row, Mapping) and not row.get("deletedAt") and stage(row.get("phase")) is not Stage.ENDED:
                self.client.delete(f"{Kind(match[1]).path}/{match[2]}")

    # ---- watching --------------------------------------------------------------------------------------------------

    def poll(self, jobs: Sequence[JobRef]) -> Mapping[str, JobStatus]:
        ours = {job.handle: job for job in jobs if HANDLE.fullmatch(job.handle)}
        statuses = {job.handle: JobStatus(JobState.GONE) for job in jobs if job.handle not in ours}
        if not ours:
            return statuses
        try:
            names = {_id(job): workload_name(job.name, job.token) for job in ours.values()}
            rows, problems = self._rows.of(self.project().id, names), []
            for handle, job in ours.items():
                if _id(job) not in rows:
                    continue
                try:
                    status = self._observe(job, rows[_id(job)])
                except OrchestratorError as error:
                    problems.append(error)
                    continue
                if status is not None:
                    statuses[handle] = status
            gone = any(handle in ours and status.state is JobState.GONE for handle, status in statuses.items())
            if gone and not is_shown(self.client, self.project()):
                raise Unobservable(f"the project {self.project().name} is not shown to these credentials any more")
        except OrchestratorError as error:
            raise Unobservable(str(error)) from error
        if problems and not statuses:
            raise Unobservable(str(problems[0]))
        return statuses

    def _observe(self, job: JobRef, row: dict[str, Any] | None) -> JobStatus | None:
        if row is None:
            self._check_place(job.attempt_dir)
        folder, now = look_into(job), self._clock.now()
        key = (row is None, (row or {}).get("phase"), folder.claimed, folder.outcome is None, folder.heartbeat_at)
        seen = Seen(row, folder, self._lasting.seconds(job.handle, key, now))
        self._note(job, row)
        found = observation.judge(seen, self.patience)
        if not isinstance(found, Doubt):
            return found
        try:
            preempted = words.speaks_of_preemption(self.client, _id(job))
        except OrchestratorError:
            if seen.same_for_s < self.patience.completing_s:
                return None
            preempted = False
        return JobStatus(JobState.ENDED, reason="PREEMPTED") if preempted else found.otherwise

    def _check_place(self, attempt_dir: Path) -> None:
        """What is not found here may be somewhere else, where the settings have changed since."""
        project = self.project()
        if not same_place(attempt_dir, project.id, project.cluster):
            raise Unobservable(
                f"{attempt_dir} was submitted to another project or cluster than {project.name}: set RUNAI_BASE_URL, "
                "RUNAI_PROJECT and RUNAI_CLUSTER as they were then"
            )

    def _note(self, job: JobRef, row: dict[str, Any] | None) -> None:
        said = {"phase": row.get("phase"), "reason": observation.reason(row)} if row else {"phase": None}
        if self._noted.get(job.handle) != tuple(said.values()):
            self._noted[job.handle] = tuple(said.values())
            ticket.note_phase(job.attempt_dir, self._clock.now(), said)

    # ---- ending ----------------------------------------------------------------------------------------------------

    def cancel(self, job: JobRef) -> None:
        """Suspend what has begun, which keeps its pods and their logs; delete what has not, since it could be resumed."""
        now = self._clock.now()
        if not HANDLE.fullmatch(job.handle) or now < self._asked_to_end.get(job.handle, float("-inf")):
            return
        try:
            if look_into(job).claimed:
                self.suspend(job)
            else:
                self.client.delete(_path(job))
        except NotFound:
            pass  # gone, which is what was wanted
        except Refused as error:
            self._insist(job, error)
        except OrchestratorError as error:
            raise Unobservable(str(error)) from error
        self._asked_to_end[job.handle] = now + self.patience.ask_again_s

    def _insist(self, job: JobRef, refusal: Refused) -> None:
        """A refused suspension: nothing where the workload is over, else a deletion."""
        try:
            row = self.client.get(f"{words.WORKLOADS}/{_id(job)}")
            phase = row.get("phase") if isinstance(row, Mapping) else None
            if stage(phase) in (Stage.ENDED, Stage.STOPPED) or phase in ("Stopping", "Deleting", "Terminating"):
                return
            self.client.delete(_path(job))
        except NotFound:
            return
        except OrchestratorError as error:
            raise Unobservable(f"{refusal}; {error}") from error

    def suspend(self, job: JobRef) -> None:
        """Ask for the end of the containers; the workload stays and can be resumed."""
        self.client.post(f"{_path(job)}/suspend")

    def resume(self, job: JobRef) -> None:
        """Ask for new containers of a suspended workload. An attempt that had begun does not begin again."""
        self.client.post(f"{_path(job)}/resume")

    # ---- for people ------------------------------------------------------------------------------------------------

    def explain(self, job: JobRef) -> list[str]:
        """What Run:ai says about the job, one fact a line.

        Raises:
            BackendError: it could not be asked.
        """
        match = HANDLE.fullmatch(job.handle)
        return words.describe(self.client, match[2]) if match else []

    def live_log(self, job: JobRef) -> bytes:
        """What the job's container has printed, while the workload lives.

        Raises:
            BackendError, UsageError: there is none, or it cannot be reached.
        """
        match = HANDLE.fullmatch(job.handle)
        if match is None:
            raise BackendError(f"{job.handle!r} names no workload of Run:ai")
        return logs.read(self.client, self.project(), Kind(match[1]), workload_name(job.name, job.token))


def _id(job: JobRef) -> str:
    match = HANDLE.fullmatch(job.handle)
    return match[2] if match else ""


def _path(job: JobRef) -> str:
    match = HANDLE.fullmatch(job.handle)
    if match is None:
        raise BackendError(f"{job.handle!r} names no workload of Run:ai")
    return f"{Kind(match[1]).path}/{match[2]}"
