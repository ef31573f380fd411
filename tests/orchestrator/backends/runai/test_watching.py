"""What the backend says about jobs that it has submitted, and when it says nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import httpx
import pytest

from orchestrator.backends.base import JobState
from orchestrator.backends.runai.observation import PATIENCE
from orchestrator.backends.runai.ticket import PHASES, TICKET
from orchestrator.errors import (
    Deferred,
    Unobservable,
)
from tests.orchestrator.backends.runai.site import LIST, Site, ref
from tests.runai.faults import rejected


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
    assert other.handle not in found, "what was just made may be shown later"
    site.clock.sleep(PATIENCE.visible_s)
    assert backend.poll([job, other])[other.handle].state is JobState.GONE


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


def test_an_outage_between_two_looks_proves_no_more_than_the_looks(site: Site) -> None:
    backend, request = site.backend(), site.request()
    other = ref(request, "training:00000000-0000-4000-8000-000000000000")
    backend.poll([other])
    site.clock.sleep(2 * PATIENCE.visible_s)
    assert backend.poll([other])[other.handle].state is JobState.GONE, "unclaimed: a minute is enough"
    job = site.running(backend, request)
    site.claim(request)
    workload = next(iter(site.plane.workloads.values()))
    site.plane.faults.phases[workload.id] = "Pending"
    assert backend.poll([job])[job.handle].state is JobState.RUNNING
    site.clock.sleep(7200)
    assert backend.poll([job])[job.handle].state is JobState.RUNNING, "a node may have been out of sight"
    site.clock.sleep(PATIENCE.visible_s)
    assert backend.poll([job])[job.handle].reason == "NODE_FAIL"


def test_with_the_settings_of_another_project_no_job_is_gone_and_none_is_asked_for_again(site: Site) -> None:
    backend, request = site.backend(), site.request()
    job = ref(request, backend.submit(request))
    ticket = request.attempt_dir / TICKET
    ticket.write_text(json.dumps({**json.loads(ticket.read_text()), "project": "another"}))
    elsewhere = ref(request, "training:00000000-0000-4000-8000-000000000000")
    for asked in (lambda: backend.find(request), lambda: backend.poll([elsewhere])):
        with pytest.raises(Unobservable, match="another project or cluster than research: set RUNAI_BASE_URL"):
            asked()
    assert backend.poll([job, elsewhere]).keys() == {job.handle}, "what is here is seen all the same"


def test_credentials_that_lost_the_project_see_nothing_and_conclude_nothing(site: Site) -> None:
    backend, request = site.backend(), site.request()
    job = ref(request, backend.submit(request))
    shown = site.inner.handle_request

    def without_a_role(asked: httpx.Request) -> httpx.Response:
        if asked.url.path.startswith("/api/v1/workloads/"):
            return httpx.Response(404, json={"code": 404, "message": "Resource id not found."})
        if asked.url.path in ("/api/v1/workloads", "/api/v1/org-unit/projects"):
            return httpx.Response(200, json={asked.url.path.rpartition("/")[2]: []})
        return shown(asked)

    site.inner.handle_request = without_a_role  # type: ignore[method-assign]
    assert backend.poll([job]) == {}
    site.clock.sleep(PATIENCE.visible_s)
    with pytest.raises(Unobservable, match="the project research is not shown"):
        backend.poll([job])


def test_storage_that_does_not_answer_says_nothing_about_a_job(site: Site) -> None:
    backend, request = site.backend(), site.request()
    job = site.running(backend, request)
    far = replace(job, attempt_dir=site.folder / ("x" * 300))  # no such name can be, so that asking is an error
    with pytest.raises(Unobservable, match="cannot look into"):
        backend.poll([far])
    with pytest.raises(Unobservable, match="cannot look into"):
        backend.cancel(far)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Preempted by a workload of higher priority", "PREEMPTED"),
        ("Pod was preempted by workload x", "PREEMPTED"),
        ("Non-preemptible workload is over quota. Use a preemptible workload to go over quota.", "FAILED"),
        ("preemption: 0/5 nodes are available: 5 No preemption victims found for incoming pod", "FAILED"),
    ],
)
def test_a_preemption_is_what_the_events_call_one(site: Site, said: str, reason: str) -> None:
    backend, request = site.backend(), site.request()
    job = site.running(backend, request)
    site.claim(request)
    workload = next(iter(site.plane.workloads.values()))
    site.plane.faults.phases[workload.id] = "Failed"
    workload.events.append({"time": 0.0, "id": "e", "type": "Normal", "reason": "Scheduling", "message": said})
    assert job.handle not in backend.poll([job])
    site.clock.sleep(PATIENCE.visible_s)
    assert backend.poll([job])[job.handle].reason == reason


def test_events_that_cannot_be_asked_for_now_are_waited_for_a_while(site: Site) -> None:
    backend, request = site.backend(), site.request()
    job = site.running(backend, request)
    site.claim(request)
    site.plane.faults.phases[next(iter(site.plane.workloads))] = "Failed"

    def no_events(asked: httpx.Request) -> None:
        if asked.url.path.endswith("/events"):
            raise httpx.ReadTimeout("slow")

    site.fails = no_events
    for _ in range(5):
        assert job.handle not in backend.poll([job])
        site.clock.sleep(PATIENCE.visible_s - 20)
    for _ in range(5):
        site.clock.sleep(PATIENCE.visible_s)
        status = backend.poll([job]).get(job.handle)
    assert status is not None
    assert status.reason == "FAILED"
