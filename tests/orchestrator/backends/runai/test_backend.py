"""The backend on the double of the control plane: what it asks, in which order, and how often."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from orchestrator.backends.base import ContainerBackend, JobRef, JobRequest, JobState, TalkativeBackend
from orchestrator.backends.runai import script
from orchestrator.backends.runai.backend import RunaiBackend
from orchestrator.backends.runai.observation import PATIENCE
from orchestrator.backends.runai.ticket import PHASES, TICKET
from orchestrator.backends.runai.workload import workload_name
from orchestrator.clock import FakeClock
from orchestrator.errors import BackendError, Deferred, SubmitUncertain, Unobservable, UsageError
from orchestrator.job.claim import own_claim, take
from orchestrator.model import Pool, Resources
from orchestrator.paths import AttemptPaths
from orchestrator.runai_spec import RunaiSpec
from tests.runai.faults import accepted_then, accepted_then_dropped, rejected
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


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def ref(request: JobRequest, handle: str) -> JobRef:
    return JobRef(handle, request.name, request.token, request.attempt_dir)


def test_it_is_a_backend_of_containers_that_can_be_asked(site: Site) -> None:
    backend = site.backend(python="/opt/python", mounts=[{"pvc": "p", "path": "/in", "local": "/here"}])
    assert isinstance(backend, ContainerBackend)
    assert isinstance(backend, TalkativeBackend)
    assert (backend.python, backend.inside(Path("/here/runs"))) == ("/opt/python", Path("/in/runs"))


# ---- submitting ------------------------------------------------------------------------------------------------------


def test_what_is_asked_is_written_down_before_it_is_asked(site: Site) -> None:
    request, seen = site.request(), []

    def look(asked: httpx.Request) -> None:
        if asked.method == "POST" and "workloads" in asked.url.path:
            seen.append(json.loads((request.attempt_dir / TICKET).read_text())["name"])
            seen.append((request.attempt_dir / script.NAME).exists())

    site.fails = look
    site.backend().submit(request)
    assert seen == [workload_name(request.name, request.token), True]


def test_submitting_asks_once_and_the_project_is_looked_up_once(site: Site) -> None:
    backend = site.backend()
    handles = {backend.submit(site.request(f"s-0123456789-{n}")) for n in range(1, 4)}
    assert len(handles) == 3
    assert site.count(SUBMIT) == 3
    assert len(site.asked) == 4


def test_several_nodes_are_another_kind_of_workload_all_the_way(site: Site) -> None:
    backend, request = site.backend(), replace(site.request(), resources=Resources(gpus=16))
    job = site.running(backend, request)
    kind, _, id_ = job.handle.partition(":")
    assert kind == "distributed"
    assert backend.find(request) == job.handle
    site.claim(request)
    backend.cancel(job)
    assert site.asked[-1] == f"POST /api/v1/workloads/distributed/{id_}/suspend"


def test_a_control_plane_that_is_down_is_no_refusal(site: Site) -> None:
    def down(_request: httpx.Request) -> None:
        raise httpx.ConnectError("refused")

    site.fails = down
    with pytest.raises(Deferred):
        site.backend().submit(site.request())
    assert site.backend().find(site.request()) is None, "positively nothing was asked for"


def test_a_project_that_does_not_exist_is_a_refusal_and_stops_a_sweep_before_it_starts(site: Site) -> None:
    backend = site.backend(project="reserch")
    with pytest.raises(UsageError, match=r"no project 'reserch': did you mean .*research"):
        backend.pools()
    with pytest.raises(BackendError, match="no project 'reserch'"):
        backend.submit(site.request())


@pytest.mark.parametrize("fault", [accepted_then(503), accepted_then(500), accepted_then_dropped()])
def test_a_lost_answer_is_uncertain_and_the_workload_is_found(site: Site, fault) -> None:
    site.plane.faults.add(fault)
    backend, request = site.backend(), site.request()
    with pytest.raises(SubmitUncertain):
        backend.submit(request)
    handle = site.backend().find(request)
    assert handle is not None
    assert site.count(SUBMIT) == 1
    assert backend.submit(request) == handle, "the name is taken: the workload is adopted"
    assert len(site.plane.workloads) == 1


@pytest.mark.parametrize("status", [409, 400])
def test_a_name_that_is_taken_leads_to_the_workload_that_has_it(tmp_path: Path, status: int) -> None:
    site = Site(tmp_path, Knobs(duplicate_status=status))
    backend, request = site.backend(), site.request()
    assert backend.submit(request) == backend.submit(request)


def test_a_request_that_may_be_under_way_is_waited_for_before_another_is_made(site: Site) -> None:
    site.plane.faults.add(rejected(503))
    backend, request = site.backend(), site.request()
    with pytest.raises(SubmitUncertain):
        backend.submit(request)
    with pytest.raises(Unobservable, match="may be under way"):
        backend.find(request)
    site.clock.sleep(PATIENCE.settle_s)
    assert backend.find(request) is None


def test_a_workload_that_was_deleted_is_found_and_not_submitted_again(site: Site) -> None:
    backend, request = site.backend(), site.request()
    job = ref(request, backend.submit(request))
    backend.cancel(job)
    site.until(JobState.ENDED, backend, job)
    assert backend.find(request) == job.handle


def test_a_workload_with_our_name_and_another_token_is_not_adopted(site: Site) -> None:
    backend, request = site.backend(), site.request()
    backend.submit(request)
    for workload in site.plane.workloads.values():
        for variable in workload.spec["environmentVariables"]:
            if variable["name"] == "ORCHESTRATOR_ATTEMPT_TOKEN":
                variable["value"] = "another"
    with pytest.raises(BackendError, match="belongs to another attempt"):
        backend.submit(request)


def test_what_a_preemption_put_back_is_deleted_when_the_next_attempt_is_submitted(site: Site) -> None:
    backend, first = site.backend(), site.request("s-0123456789-1")
    job = site.running(backend, first)
    backend.submit(site.request("s-0123456789-2", after=job))
    site.until(JobState.ENDED, backend, job)
    assert f"DELETE /api/v1/workloads/trainings/{job.handle.partition(':')[2]}" in site.asked


# ---- watching --------------------------------------------------------------------------------------------------------


def test_one_listing_a_poll_whatever_the_number_of_jobs(site: Site) -> None:
    backend = site.backend()
    requests = [site.request(f"s-{n:010}-1") for n in range(12)]
    jobs = [ref(request, backend.submit(request)) for request in requests]
    site.asked.clear()
    assert set(backend.poll(jobs)) == {job.handle for job in jobs}
    assert site.asked == [LIST]


def test_a_job_that_a_listing_lacks_is_asked_for_before_anything_is_said(site: Site) -> None:
    backend, request = site.backend(), site.request()
    job = site.running(backend, request)

    def shown_to_nobody(asked: httpx.Request) -> None:
        if asked.url.path == "/api/v1/workloads":
            raise httpx.ReadTimeout("slow")

    site.fails = shown_to_nobody
    with pytest.raises(Unobservable):
        backend.poll([job])
    site.fails = lambda _: None
    other = ref(request, "training:00000000-0000-4000-8000-000000000000")
    found = backend.poll([job, other])
    assert found[job.handle].state is JobState.RUNNING
    assert found[other.handle].state is JobState.GONE


def test_a_server_that_knows_no_filter_by_the_start_of_a_name_is_asked_without_it(site: Site) -> None:
    backend, request = site.backend(), site.request()
    job = ref(request, backend.submit(request))
    site.plane.faults.add(rejected(400, method="GET", path="/workloads$"))
    for _ in range(2):
        assert job.handle in backend.poll([job])
    assert site.count(LIST) == 3


def test_credentials_that_are_gone_for_a_while_change_nothing(site: Site) -> None:
    backend, request = site.backend(), site.request()
    job = ref(request, backend.submit(request))
    secret = site.environ.pop("RUNAI_CLIENT_SECRET")
    site.clock.sleep(4000)  # past the token's end
    for asked in (lambda: backend.poll([job]), lambda: backend.find(request), lambda: backend.cancel(job)):
        with pytest.raises(Unobservable, match="RUNAI_CLIENT_SECRET is not set"):
            asked()
    with pytest.raises(Deferred):
        backend.submit(site.request("s-0123456789-2"))
    site.environ["RUNAI_CLIENT_SECRET"] = secret
    assert job.handle in backend.poll([job])


def test_the_phases_that_were_seen_are_kept_each_once(site: Site) -> None:
    backend, request = site.backend(), site.request()
    job = site.running(backend, request)
    for _ in range(3):
        backend.poll([job])
    lines = [json.loads(line) for line in (request.attempt_dir / PHASES).read_text().splitlines()]
    assert [line["phase"] for line in lines][-1] == "Running"
    assert len(lines) == len({line["phase"] for line in lines})


# ---- ending ----------------------------------------------------------------------------------------------------------


def test_what_has_not_begun_is_deleted_and_what_has_is_suspended_once(site: Site) -> None:
    backend, waiting, begun = site.backend(), site.request("s-0000000001-1"), site.request("s-0000000002-1")
    jobs = [ref(request, backend.submit(request)) for request in (waiting, begun)]
    site.claim(begun)
    ids = [job.handle.partition(":")[2] for job in jobs]
    for _ in range(3):
        for job in jobs:
            backend.cancel(job)
    assert site.count(f"DELETE /api/v1/workloads/trainings/{ids[0]}") == 1
    assert site.count(f"POST /api/v1/workloads/trainings/{ids[1]}/suspend") == 1
    site.clock.sleep(PATIENCE.ask_again_s + 1)
    backend.cancel(jobs[1])
    assert site.count(f"POST /api/v1/workloads/trainings/{ids[1]}/suspend") == 2


@pytest.mark.parametrize("status", [202, 400, 404])
def test_cancelling_what_is_over_is_no_error_whatever_the_answer(tmp_path: Path, status: int) -> None:
    site = Site(tmp_path, Knobs(ended_status=status))
    backend, request = site.backend(), site.request()
    job = site.running(backend, request)
    site.claim(request)
    backend.cancel(job)
    site.until(JobState.ENDED, backend, job)
    site.clock.sleep(PATIENCE.ask_again_s)
    backend.cancel(job)
    assert not any(call.startswith("DELETE") for call in site.asked)


def test_a_workload_that_cannot_be_suspended_is_deleted(site: Site) -> None:
    backend, request = site.backend(), site.request()
    job = site.running(backend, request)
    site.claim(request)
    site.plane.faults.add(rejected(400, path="/suspend$"))
    backend.cancel(job)
    assert site.asked[-1].startswith("DELETE")


# ---- for people ------------------------------------------------------------------------------------------------------


def test_a_job_is_explained_with_its_phase_and_pool(site: Site) -> None:
    backend, request = site.backend(), site.request()
    lines = backend.explain(site.running(backend, request))
    assert lines[0] == "phase Running"
    assert "node pool h100" in lines
    assert any(line.startswith("phase: ") and "Pending" in line for line in lines)
    assert backend.explain(ref(request, "what?")) == []


def test_a_log_is_read_from_the_cluster(site: Site) -> None:
    backend, request = site.backend(), site.request()
    job = site.running(backend, request)
    assert isinstance(backend.live_log(job), bytes)
    with pytest.raises(BackendError, match="names no workload"):
        backend.live_log(ref(request, "what?"))
