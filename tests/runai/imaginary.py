"""Containers without processes, for time that only moves when somebody sleeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.backends.base import JobRequest
from orchestrator.backends.fake_files import OnEnd, succeed, write_outcome
from orchestrator.clock import Clock
from orchestrator.job.claim import take
from orchestrator.job.stopping import TERMINATED
from orchestrator.model import Resources
from orchestrator.paths import AttemptPaths
from tests.runai.containers import SIGNALLED, Container, Launch
from trainer_ext.records import ENV_ATTEMPT_TOKEN, Claim

SIGTERM, SIGKILL = 15, 9


@dataclass
class IdleContainer:
    """Does nothing until it is told to end."""

    code: int | None = None

    def end(self, code: int) -> None:
        if self.code is None:
            self.code = code

    def exit_code(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.end(SIGNALLED + SIGTERM)

    def kill(self) -> None:
        self.end(SIGNALLED + SIGKILL)


@dataclass
class Idle:
    """Starts containers that do nothing."""

    started: list[Launch] = field(default_factory=list)

    def start(self, launch: Launch) -> Container:
        self.started.append(launch)
        return IdleContainer()


@dataclass(frozen=True)
class Act:
    """What the wrapper in one container does."""

    leaves: OnEnd = succeed
    """Writes the files of the job's end."""
    seconds: float = 0.5
    code: int = 0
    """The container's own exit code, which need not tell the truth."""


@dataclass
class Stagehand:
    """Starts containers whose wrappers keep the protocol of the attempt folder: claim first, outcome last.

    Args:
        script: (attempt folder, pool) -> what the wrapper that has the claim does there.
    """

    clock: Clock
    script: Callable[[Path, str], Act]
    started: Counter[str] = field(default_factory=Counter)
    """Token -> containers that were started for it."""
    finished: Counter[str] = field(default_factory=Counter)
    """Token -> jobs that came to their own end."""

    def start(self, launch: Launch) -> Container:
        if ENV_ATTEMPT_TOKEN not in launch.environ:  # somebody else's
            return IdleContainer()
        folder, token = Path(launch.words[-1]).parent, launch.environ[ENV_ATTEMPT_TOKEN]
        self.started[token] += 1
        now = self.clock.now()
        claim = Claim(token=token, host=launch.environ["NODE_NAME"], pid=0, process_started_at=now, time=now)
        if not take(AttemptPaths(folder).claim, claim):
            return IdleContainer(code=0)
        request = JobRequest("", token, folder, None, Resources())
        return ActedContainer(self, self.script(folder, launch.environ["DOUBLE_NODE_POOL"]), request, now)


@dataclass
class ActedContainer:
    """One that acts by its clock."""

    stage: Stagehand
    act: Act
    request: JobRequest
    started_at: float
    code: int | None = None

    def exit_code(self) -> int | None:
        ends_at = self.started_at + self.act.seconds
        if self.code is None and self.stage.clock.now() >= ends_at:
            self.act.leaves(self.request, self.started_at, ends_at)
            self.stage.finished[self.request.token] += 1
            self.code = self.act.code
        return self.code

    def terminate(self) -> None:
        if self.exit_code() is None:
            now = self.stage.clock.now()
            write_outcome(self.request, self.started_at, now, signal=SIGTERM, stop_reason=TERMINATED)
            self.code = 0

    def kill(self) -> None:
        if self.exit_code() is None:
            self.code = SIGNALLED + SIGKILL
