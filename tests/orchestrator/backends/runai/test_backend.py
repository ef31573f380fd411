"""The backend on the double of the control plane: what it asks, in which order, and how often."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from orchestrator.backends.base import ContainerBackend, JobState, TalkativeBackend
from orchestrator.backends.runai import script
from orchestrator.backends.runai.faults import Refused
from orchestrator.backends.runai.observation import PATIENCE
from orchestrator.backends.runai.ticket import TICKET
from orchestrator.backends.runai.workload import workload_name
from orchestrator.errors import (
    BackendError,
    Deferred,
    EnvironmentProblem,
    SubmitUncertain,
    Unobservable,
    UsageError,
)
from orchestrator.model import Resources
from tests.orchestrator.backends.runai.site import SUBMIT, Site, ref
from tests.runai.faults import accepted_then, accepted_then_dropped, rejected
from tests.runai.knobs import Knobs


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


def test_something_else_that_exists_twice_is_a_refusal_and_not_a_name_that_is_taken(site: Site) -> None:
    def twice(asked: httpx.Request) -> httpx.Response:
        if asked.method == "POST" and asked.url.path.endswith("/trainings"):
            return httpx.Response(400, json={"code": 400, "message": "duplicate environment variable name HF_HOME"})
        return shown(asked)

    shown, site.inner.handle_request = site.inner.handle_request, twice  # type: ignore[method-assign]
    with pytest.raises(Refused, match="duplicate environment variable"):
        site.backend().submit(site.request())


@pytest.mark.parametrize("status", [401, 403, 503])
def test_a_taken_name_whose_workload_cannot_be_looked_up_is_no_refusal(site: Site, status: int) -> None:
    backend, request = site.backend(), site.request()
    backend.submit(request)
    for _ in range(8):
        site.plane.faults.add(rejected(status, method="GET", path="/workloads$"))
    with pytest.raises(SubmitUncertain):
        backend.submit(request)


def test_credentials_that_are_gone_stop_no_sweep_whatever_is_being_done(site: Site) -> None:
    backend, first = site.backend(), site.request("s-0123456789-1")
    job = site.running(backend, first)
    site.claim(first)
    second = site.request("s-0123456789-2", after=job)

    secret, shown = site.environ.pop("RUNAI_CLIENT_SECRET"), site.inner.handle_request
    site.clock.sleep(4000)  # past the token's end
    with pytest.raises(Deferred):
        backend.submit(second)
    site.environ["RUNAI_CLIENT_SECRET"] = secret

    def refuse(asked: httpx.Request) -> httpx.Response:
        if asked.url.path.endswith("token"):
            return shown(asked)
        site.environ.pop("RUNAI_CLIENT_SECRET", None)
        status = 400 if asked.url.path.endswith("suspend") else 401
        return httpx.Response(status, json={"code": status, "message": "no"})

    site.inner.handle_request = refuse  # type: ignore[method-assign]
    with pytest.raises(Unobservable, match="RUNAI_CLIENT_SECRET is not set"):
        backend.cancel(job)


def test_jobs_that_could_not_run_are_refused_before_any_is_submitted(site: Site) -> None:
    with pytest.raises(EnvironmentProblem, match="without blanks; choose another --root"):
        site.backend().inside(Path("/a folder"))
    del site.environ["RUNAI_IMAGE"]
    with pytest.raises(EnvironmentProblem, match="set RUNAI_IMAGE"):
        site.backend().inside(Path("/runs"))


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
