"""The backend in front of the double, in time that moves only when somebody sleeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from orchestrator.backends.base import JobRef, JobRequest, JobState
from orchestrator.backends.runai.backend import RunaiBackend
from orchestrator.clock import FakeClock
from orchestrator.job.claim import own_claim, take
from orchestrator.model import Pool, Resources
from orchestrator.paths import AttemptPaths
from orchestrator.runai_spec import RunaiSpec
from tests.runai.imaginary import Idle
from tests.runai.knobs import Knobs
from tests.runai.server import InProcess, imagined

H100 = Pool("h100", 8)
SUBMIT, LIST = "POST /api/v1/workloads/trainings", "GET /api/v1/workloads"


@dataclass
class Site:
    """A control plane in time that moves only when somebody sleeps, with a record of what it was asked."""

    folder: Path
    knobs: Knobs = field(default_factory=Knobs)
    clock: FakeClock = field(default_factory=FakeClock)
    asked: list[str] = field(default_factory=list)
    fails: Callable[[httpx.Request], None] = lambda _request: None

    def __post_init__(self) -> None:
        self.plane = imagined(self.folder / "containers", self.clock, runtime=Idle(), knobs=self.knobs)
        self.inner = InProcess(self.plane)
        self.environ = {**self.plane.environ("http://runai.test"), "RUNAI_IMAGE": "registry/x:1"}

    def backend(self, **keys: object) -> RunaiBackend:
        transport = httpx.MockTransport(self._handle)
        return RunaiBackend.of(RunaiSpec.model_validate(keys), self.environ, clock=self.clock, transport=transport)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.fails(request)
        if "token" not in request.url.path:
            self.asked.append(f"{request.method} {request.url.path}")
        return self.inner.handle_request(request)

    def request(self, name: str = "s-0123456789-1", **keys: object) -> JobRequest:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return JobRequest(name, f"token of {name}", folder, H100, Resources(gpus=8), **keys)  # type: ignore[arg-type]

    def running(self, backend: RunaiBackend, request: JobRequest) -> JobRef:
        job = ref(request, backend.submit(request))
        self.until(JobState.RUNNING, backend, job)
        return job

    def until(self, state: JobState, backend: RunaiBackend, job: JobRef) -> None:
        """The double moves on by one stage whenever it is asked."""
        for _ in range(40):
            self.clock.sleep(5)
            status = backend.poll([job]).get(job.handle)
            if status is not None and status.state is state:
                return
        raise AssertionError(f"never {state}")

    def claim(self, request: JobRequest) -> None:
        take(AttemptPaths(request.attempt_dir).claim, own_claim(request.token, self.clock.now()))

    def count(self, call: str) -> int:
        return self.asked.count(call)


def ref(request: JobRequest, handle: str) -> JobRef:
    return JobRef(handle, request.name, request.token, request.attempt_dir)
