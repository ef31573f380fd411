"""The job of a minute by which `doctor --deep` finds out what no document says. It is deleted in the end, whatever comes.

It is submitted, listed, submitted again under the same name, watched, suspended, resumed, ended with an exit code and deleted;
its container leaves marks in the state folder.
"""

from __future__ import annotations

import secrets
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.backends.base import JobRef, JobRequest, Sign
from orchestrator.backends.runai import finding, observation, script, words, workload
from orchestrator.backends.runai.backend import RunaiBackend
from orchestrator.backends.runai.faults import NotFound, Refused
from orchestrator.backends.runai.listing import only, read_all
from orchestrator.backends.runai.phases import Stage, stage
from orchestrator.backends.runai.unverified import UNVERIFIED
from orchestrator.backends.runai.workload import Ask, Kind
from orchestrator.clock import Clock
from orchestrator.errors import BackendError, Deferred, OrchestratorError
from orchestrator.model import Pool, Resources
from trainer_ext.records import ENV_ATTEMPT_TOKEN, write_atomic

T = TypeVar("T")
EXIT_CODE = 3
RATE_LIMITED_TRIES = 5
MARK = "doctor's trial has begun"
_SCRIPT = """\
#!/bin/sh
cd {folder} || exit 4
echo x >> starts
echo "{mark}"
trap 'echo x >> told; exit 143' TERM
n=0
while [ ! -e finish ] && [ "$n" -lt 600 ]; do sleep 0.5 & wait $!; n=$((n + 1)); done
exit {code}
"""


@dataclass(frozen=True)
class Pace:
    """Seconds."""

    look_every_s: float = 2.0
    queue_s: float = 180.0
    """For a node to be free, and the image to be there."""
    phase_s: float = 120.0
    """For a change that was asked for."""
    visible_s: float = 60.0
    """For a file to cross shared storage."""
    rerun_s: float = 20.0
    """In which a second start would show."""


PACE = Pace()


class _CannotGoOn(Exception):
    """The trial cannot go on; the message says why."""


@dataclass
class Trial:
    """One trial job.

    Args:
        pool: where; None: the project's default.
        gpus: 1 where the site's jobs use any: as cheap as a check of the scheduler can be.
    """

    backend: RunaiBackend
    root: Path
    clock: Clock
    pool: Pool | None = None
    gpus: int = 1
    pace: Pace = PACE
    phases: list[str] = field(default_factory=list)
    limited: str = ""
    """What was said to the last request that came too soon."""
    checked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.folder = self.root / f".doctor-{secrets.token_hex(4)}"
        self.request = JobRequest("doctor", secrets.token_hex(16), self.folder, self.pool, Resources(gpus=self.gpus))
        self.id, self.is_asked_for = "", False

    def run(self) -> Iterator[Sign]:
        """What was found, as it is found; then what this trial cannot find out."""
        try:
            self.folder.mkdir(parents=True)
            yield from self._steps()
        except (_CannotGoOn, OrchestratorError, OSError) as error:
            yield Sign("trial job", False, str(error))
        finally:
            self._clear()
        for code, open_question in UNVERIFIED.items():
            if code not in self.checked:
                why = "not reached" if open_question.tried else "not to be tried with one job"
                yield Sign(f"assumption {code}", True, f"{why}: {open_question.question}; {open_question.therefore}")

    def _steps(self) -> Iterator[Sign]:
        ask = self._ask()
        token = self.backend.client.token()
        yield self._says("token_form", True, token.form)
        yield self._says("token_ttl", True, f"{token.lives_s:g} s")
        self.is_asked_for = True
        answer = self._patiently(lambda: self.backend.client.post(ask.kind.path, ask.body))
        self.id = str(answer.get("workloadId") or "") if isinstance(answer, Mapping) else ""
        if not self.id:
            raise _CannotGoOn("the answer to the submission names no workload: is this the control plane's address?")
        yield Sign("trial job", True, f"{ask.body['name']} was accepted")
        yield from self._listed(ask)
        yield self._submitted_twice(ask)
        yield self._wrong_kind()
        yield from self._runs()
        yield from self._suspended_and_resumed()
        yield from self._fails()
        yield from self._deleted(ask)
        if self.limited:
            yield self._says("rate_limit", True, self.limited)

    def _ask(self) -> Ask:
        settings = self.backend.settings
        ask = workload.ask(self.request, settings, self.backend.project())
        folder = shlex.quote(str(settings.inside(self.folder)))
        text = _SCRIPT.format(folder=folder, mark=MARK, code=EXIT_CODE)
        write_atomic(self.folder / script.NAME, text)
        return ask

    def _says(self, code: str, ok: bool, detail: str) -> Sign:
        self.checked.add(code)
        return Sign(f"assumption {code}", ok, detail)

    # ---- steps -----------------------------------------------------------------------------------------------------

    def _listed(self, ask: Ask) -> Iterator[Sign]:
        began, name = self.clock.now(), ask.body["name"]
        row = self._wait(
            lambda: self._row_named(f"=={name}"), self.pace.phase_s, "the workload never appeared in the list"
        )
        late_s, settle_s = self.clock.now() - began, self.backend.patience.settle_s
        detail = f"listed within {late_s:.0f} s; a lost answer is waited for {settle_s:g} s"
        yield self._says("listing_lag", late_s <= settle_s, detail)
        variables = row.get("environmentVariables") or {}
        shown = variables.get(ENV_ATTEMPT_TOKEN) == self.request.token
        yield self._says("env_in_list", True, "lists show the environment" if shown else "lists hide the environment")
        hit, miss = self._row_named(f"=^{name[:-2]}"), self._any_row("=^no-such-workload")
        works = hit is not None and miss is None
        yield self._says(
            "starts_with_filter", True, "works" if works else "does not filter: listings are longer than needed"
        )

    def _submitted_twice(self, ask: Ask) -> Sign:
        try:
            answer = self._patiently(lambda: self.backend.client.post(ask.kind.path, ask.body))
        except Refused as error:
            return self._says("duplicate_status", error.says_name_is_taken, f"{error.status}: {error.said}")
        second = str(answer.get("workloadId")) if isinstance(answer, Mapping) else ""
        if second and second != self.id:
            with suppress(BackendError):
                self.backend.client.delete(f"{Kind.TRAINING.path}/{second}")
        return self._says("duplicate_status", False, "a second workload of the same name was accepted")

    def _wrong_kind(self) -> Sign:
        try:
            self.backend.client.get(f"{Kind.DISTRIBUTED.path}/{self.id}")
        except Refused as error:
            return self._says("wrong_kind_status", True, str(error.status))
        return self._says("wrong_kind_status", True, "a training can be asked for as a distributed workload")

    def _runs(self) -> Iterator[Sign]:
        self._until(Stage.ACTIVE, self.pace.queue_s)
        self._wait(lambda: self._lines("starts") >= 1 or None, self.pace.visible_s, self._nothing_written())
        yield Sign("trial job", True, f"runs, and {self.folder} is seen by both")
        yield self._says("tokenisation", True, "/bin/sh and the path of a script, as two strings, run the script")
        seen = self._wait(lambda: self._log_has_mark() or None, self.pace.visible_s)
        detail = (
            "logs --live shows what the container prints"
            if seen
            else "no log at the cluster's endpoint: use console.log"
        )
        yield Sign("trial log", True, detail)

    def _nothing_written(self) -> str:
        inside = self.backend.inside(self.folder)
        return (
            f"The container wrote nothing to {inside} that is seen here as {self.folder}: check runai.mounts (the claim, and "
            f"where it is mounted here and there) and the image; Run:ai says: {self._last_words()}"
        )

    def _suspended_and_resumed(self) -> Iterator[Sign]:
        job, before = self._job(), len(self.phases)
        self._patiently(lambda: self.backend.suspend(job))
        self._until(Stage.STOPPED, self.pace.phase_s)
        yield self._says("suspend_phases", True, " -> ".join(self.phases[before:]))
        told = self._wait(lambda: self._lines("told") >= 1 or None, self.pace.visible_s)
        yield Sign(
            "trial SIGTERM", bool(told), "the container was told to stop" if told else "it was killed without a word"
        )
        yield self._says("ended_status", True, self._status(lambda: self.backend.suspend(job)))
        self._patiently(lambda: self.backend.resume(job))
        self._until(Stage.ACTIVE, self.pace.queue_s)
        self._wait(
            lambda: self._lines("starts") >= 2 or None, self.pace.visible_s, "a resumed workload did not start again"
        )
        yield Sign("trial resume", True, "a suspended workload starts anew")

    def _fails(self) -> Iterator[Sign]:
        before = len(self.phases)
        (self.folder / "finish").touch()
        row = self._until(Stage.ENDED, self.pace.phase_s + self.pace.visible_s)
        seen = " -> ".join(self.phases[before:])
        yield self._says("exit_code_phase", row.get("phase") == "Failed", f"exit code {EXIT_CODE}: {seen}")
        yield self._says("failure_wording", True, self._last_words())
        self.clock.sleep(self.pace.rerun_s)
        starts = self._lines("starts")
        detail = (
            "accepted, and nothing ran again" if starts == 2 else f"the container was started {starts} times, not twice"
        )
        yield self._says("backoff_limit_zero", starts == 2, detail)
        kept = self._log_has_mark()
        yield self._says("log_retention", True, "logs outlive the end" if kept else "logs go with the end")

    def _deleted(self, ask: Ask) -> Iterator[Sign]:
        began = self.clock.now()
        self._patiently(lambda: self.backend.client.delete(f"{ask.kind.path}/{self.id}"))
        how = self._wait(self._how_gone, self.pace.phase_s, "the workload is still there after its deletion")
        yield self._says("deletion_delay", True, f"{self.clock.now() - began:.0f} s")
        yield self._says("deleted_status", True, how)
        self.id, self.is_asked_for = "", False

    def _patiently(self, act: Callable[[], T]) -> T:
        """Again where it positively did not happen, for want of room."""
        for _ in range(RATE_LIMITED_TRIES):
            try:
                return act()
            except Deferred as error:
                self.limited = str(error)
                self.clock.sleep(self.pace.look_every_s)
        return act()

    # ---- looking ---------------------------------------------------------------------------------------------------

    def _until(self, wanted: Stage, within_s: float) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            row = self._row()
            phase = str(row.get("phase"))
            if not self.phases or self.phases[-1] != phase:
                self.phases.append(phase)
            now = stage(phase)
            if now is Stage.ENDED and wanted is not Stage.ENDED:
                raise _CannotGoOn(f"it ended as {phase} already. {self._nothing_written()}")
            return row if now is wanted and phase not in ("Stopping", "Suspending", "Terminating") else None

        found: dict[str, Any] | None = self._wait(there, within_s)
        if found is None:
            raise _CannotGoOn(
                f"not {wanted.value} within {within_s:.0f} s; it is {self.phases[-1:]}: {self._last_words()}"
            )
        return found

    def _wait(self, there: Callable[[], Any], within_s: float, otherwise: str | None = None) -> Any:
        deadline = self.clock.now() + within_s
        while (found := there()) is None and self.clock.now() < deadline:
            self.clock.sleep(self.pace.look_every_s)
        if found is None and otherwise is not None:
            raise _CannotGoOn(otherwise)
        return found

    def _row(self) -> dict[str, Any]:
        row = self.backend.client.get(f"{words.WORKLOADS}/{self.id}")
        return row if isinstance(row, dict) else {}

    def _any_row(self, condition: str) -> dict[str, Any] | None:
        params = {"filterBy": only(name=condition, projectId=f"=={self.backend.project().id}"), "deleted": "false"}
        return next(iter(read_all(self.backend.client.get, words.WORKLOADS, "workloads", params)), None)

    def _row_named(self, condition: str) -> dict[str, Any] | None:
        row = self._any_row(condition)
        return row if row is not None and str(row.get("id")) == self.id else None

    def _how_gone(self) -> str | None:
        try:
            row = self._row()
        except NotFound:
            return "404"
        return "200 with a date of deletion" if row.get("deletedAt") else None

    def _lines(self, name: str) -> int:
        try:
            return len((self.folder / name).read_text().split())
        except OSError:
            return 0

    def _log_has_mark(self) -> bool:
        try:
            return MARK.encode() in self.backend.live_log(self._job())
        except OrchestratorError:
            return False

    def _last_words(self) -> str:
        try:
            said = [observation.reason(self._row()) or "no reason", *words.events(self.backend.client, self.id)[-2:]]
        except BackendError as error:
            return str(error)
        return "; ".join(said)

    def _status(self, act: Callable[[], None]) -> str:
        try:
            self._patiently(act)
        except Refused as error:
            return f"{error.status}: {error.said}"
        return "accepted"

    def _job(self) -> JobRef:
        return JobRef(f"{Kind.TRAINING.value}:{self.id}", self.request.name, self.request.token, self.folder)

    def _id_by_name(self) -> str | None:
        """Of a workload whose submission lost its answer."""
        if not self.is_asked_for:
            return None
        name, project = workload.workload_name(self.request.name, self.request.token), self.backend.project().id
        return finding.find(self.backend.client, project, name, Kind.TRAINING, self.request.token)

    def _clear(self) -> None:
        with suppress(OrchestratorError):
            id_ = self.id or self._id_by_name()
            if id_:
                self._patiently(lambda: self.backend.client.delete(f"{Kind.TRAINING.path}/{id_}"))
        shutil.rmtree(self.folder, ignore_errors=True)
