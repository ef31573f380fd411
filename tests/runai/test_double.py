"""The double by plain HTTP: what it refuses, what it hides, how it fails on demand, and under which settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.backends.runai import unverified
from orchestrator.clock import FakeClock
from tests.e2e.sweeping import ROOT
from tests.runai import knobs as knobs_module
from tests.runai import schema
from tests.runai.faults import Fate, Fault, accepted_then, hangs, rejected, slow
from tests.runai.imaginary import Idle
from tests.runai.knobs import UNVERIFIED, Knobs, variations
from tests.runai.plane import PROJECT, ControlPlane
from tests.runai.server import InProcess, Server, imagined

READ_S = 5.0
CREATE = "/api/v1/workloads/trainings"


class Double:
    """A client without opinions, on a control plane in imagined time."""

    def __init__(self, folder: Path, knobs: Knobs) -> None:
        self.clock = FakeClock()
        self.plane: ControlPlane = imagined(folder, self.clock, knobs=knobs, runtime=Idle())
        self.transport = InProcess(self.plane)
        self.http = httpx.Client(transport=self.transport, base_url="http://plane.invalid", timeout=READ_S)
        self.authorize()

    def authorize(self) -> None:
        environ = self.plane.environ("")
        body = {
            "grantType": "client_credentials",
            "clientID": environ["RUNAI_CLIENT_ID"],
            "clientSecret": environ["RUNAI_CLIENT_SECRET"],
        }
        token = self.http.post("/api/v1/token", json=body).json()["accessToken"]
        self.http.headers["Authorization"] = f"Bearer {token}"

    def create(self, name: str = "job", **spec: Any) -> httpx.Response:
        return self.http.post(CREATE, json=body(name, **spec))

    def names(self, **query: Any) -> list[str]:
        return [row["name"] for row in self.http.get("/api/v1/workloads", params=query).json()["workloads"]]

    def pass_time(self, seconds: float, step: float = 0.1) -> None:
        for _ in range(round(seconds / step)):
            self.clock.sleep(step)
            self.plane.advance()


def body(name: str = "job", **spec: Any) -> dict[str, Any]:
    default = {"image": "busybox", "command": "run", "nodePools": ["h100"], "compute": {"gpuDevicesRequest": 8}}
    return {"name": name, "projectId": PROJECT["id"], "clusterId": PROJECT["clusterId"], "spec": {**default, **spec}}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Double]]:
    made: list[Double] = []

    def make(**settings: Any) -> Double:
        made.append(Double(tmp_path, Knobs(**settings)))
        return made[-1]

    yield make
    for double in made:
        double.http.close()
        assert double.transport.api.dishonest == []


@pytest.fixture
def double(make: Callable[..., Double]) -> Double:
    return make()


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Upper"}, "lower case alphanumeric"),
        ({"name": "x" * 64}, "must not exceed 63"),
        ({"projectId": 4501}, "projectId"),
        ({"projectId": "1"}, "project 1 was not found"),
        ({"nodePool": "h100"}, "unknown field"),
        ({"spec": {"image": "i", "node_pools": ["h100"]}}, "spec.node_pools: unknown field"),
        ({"spec": {"command": "run"}}, "spec.image is mandatory"),
        ({"spec": {"image": "i", "compute": {"cpuMemoryRequest": "64 GB"}}}, "cpuMemoryRequest"),
        ({"spec": {"image": "i", "restartPolicy": "Sometimes"}}, "restartPolicy"),
        ({"spec": {"image": "i", "priorityClass": "urgent"}}, "priority class urgent"),
    ],
)
def test_a_request_that_the_real_server_would_refuse_is_refused(
    double: Double, change: dict[str, Any], words: str
) -> None:
    answer = double.http.post(CREATE, json=body() | change)
    assert answer.status_code == 400
    assert words in answer.text
    assert double.plane.workloads == {}


def test_the_walker_finds_unknown_fields_at_any_depth() -> None:
    request = body(environmentVariables=[{"name": "A", "valeu": "1"}])
    assert schema.problems(schema.models.TrainingCreationRequest, request) == [
        "spec.environmentVariables[0].valeu: unknown field"
    ]


def test_an_answer_with_what_the_api_does_not_have_is_noticed(double: Double) -> None:
    row = double.http.get("/api/v1/workloads").json() | {"exitCode": 1}
    assert schema.problems(schema.models.GetWorkloads200Response, row) == ["exitCode: unknown field"]


# ---- tokens --------------------------------------------------------------------------------------------------------


def test_a_token_ends_by_itself_and_by_revocation(double: Double) -> None:
    assert double.http.get("/api/v1/workloads").status_code == 200
    double.plane.tokens.revoke_all()
    assert double.http.get("/api/v1/workloads").json() == {"code": 401, "message": "Issuer is not familiar."}
    double.authorize()
    double.clock.sleep(3601)
    assert double.http.get("/api/v1/workloads").status_code == 401


def test_both_forms_of_the_token_request_are_known(make: Callable[..., Double]) -> None:
    environ = ControlPlane(Path()).environ("")
    form = {
        "grant_type": "client_credentials",
        "client_id": environ["RUNAI_CLIENT_ID"],
        "client_secret": environ["RUNAI_CLIENT_SECRET"],
    }
    answer = make().http.post("/api/v2/token", data=form).json()
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
    assert make().http.post("/api/v2/token", data=form | {"client_secret": "x"}).json()["error"] == "invalid_client"
    assert make(token_form="v1").http.post("/api/v2/token", data=form).status_code == 404


# ---- lists ---------------------------------------------------------------------------------------------------------


def test_lists_come_in_pages_with_filters_and_an_order(double: Double) -> None:
    for name in ("b-1", "a-1", "a-2"):
        double.create(name)
        double.clock.sleep(1)
    assert double.names(filterBy="name=^a-,projectId==4501", sortBy="name", sortOrder="desc") == ["a-2", "a-1"]
    first = double.http.get("/api/v1/workloads", params={"limit": 2}).json()
    assert ([row["name"] for row in first["workloads"]], first["next"]) == (["b-1", "a-1"], 2)
    last = double.http.get("/api/v1/workloads", params={"limit": 2, "offset": 2}).json()
    assert ([row["name"] for row in last["workloads"]], last.get("next")) == (["a-2"], None)
    for wrong in ({"limit": 501}, {"filterBy": "labels==x"}, {"sortBy": "labels"}):
        assert double.http.get("/api/v1/workloads", params=wrong).status_code == 400


def test_a_page_may_move_while_a_client_reads(double: Double) -> None:
    for name in ("one", "two", "three"):
        double.create(name)
    first = double.plane.named("one")[0]
    leave = Fault(method="GET", path="workloads$", accepted=True, afterwards=lambda: double.plane.forget(first.id))
    double.plane.faults.add(leave)
    seen = double.names(limit=1) + double.names(limit=1, offset=1) + double.names(limit=1, offset=2)
    assert seen == ["one", "three"], "two slipped over the boundary"


# ---- faults --------------------------------------------------------------------------------------------------------


def test_faults_do_what_they_are_named_for(double: Double) -> None:
    faults = double.plane.faults
    faults.add(rejected(500))
    assert (double.create("a").status_code, double.plane.named("a")) == (500, [])
    faults.add(accepted_then(503))
    assert (double.create("b").status_code, len(double.plane.named("b"))) == (503, 1)
    faults.add(Fault(Fate.DROP))
    with pytest.raises(httpx.RemoteProtocolError):
        double.create("c")
    assert double.plane.named("c") == []
    faults.add(hangs(accepted=True))
    before = double.clock.now()
    with pytest.raises(httpx.ReadTimeout):
        double.create("d")
    assert (double.clock.now() - before, len(double.plane.named("d"))) == (READ_S, 1)
    faults.add(slow(2.0))
    assert double.create("e").status_code == 202
    faults.add(Fault(Fate.GATEWAY, status=502))
    assert "Bad Gateway" in double.create("f").text
    faults.phases["*"] = "Reconciling"
    rows = double.http.get("/api/v1/workloads").json()["workloads"]
    assert {row["phase"] for row in rows} == {"Reconciling"}


def test_a_dropped_connection_is_one_on_the_wire_too(server: Server) -> None:
    server.plane.faults.add(Fault(Fate.DROP, path="/api/v2/token"))
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{server.url}/api/v2/token")


# ---- what is not known ---------------------------------------------------------------------------------------------


def test_every_knob_is_an_open_question_with_more_than_one_setting() -> None:
    assert {field.name for field in fields(Knobs)} == set(UNVERIFIED)
    assert all(len(knobs_module.settings(name)) >= 2 for name in UNVERIFIED)
    assert len(variations()) == 1 + sum(len(one.others) for one in UNVERIFIED.values())


def test_the_product_and_its_page_name_every_knob() -> None:
    page = (ROOT / "docs" / "runai.md").read_text()
    assert set(UNVERIFIED) <= set(unverified.UNVERIFIED)
    assert [name for name in UNVERIFIED if name not in page] == []


@pytest.mark.parametrize("status", knobs_module.settings("duplicate_status"))
def test_a_name_is_taken_until_its_workload_is_gone(make: Callable[..., Double], status: int) -> None:
    double = make(duplicate_status=status, name_reuse_after_delete=3.0)
    id_ = double.create().json()["workloadId"]
    assert double.create().status_code == status
    double.http.delete(f"{CREATE}/{id_}")
    assert double.create().status_code == status, "its deletion has only begun"
    double.pass_time(1)
    assert double.create().status_code == status, "it is gone, its name is not free yet"
    double.pass_time(3)
    assert double.create().status_code == 202


@pytest.mark.parametrize("phases", knobs_module.settings("preemption_phases"))
def test_the_less_important_gives_way_and_comes_back(make: Callable[..., Double], phases: tuple[str, ...]) -> None:
    double = make(preemption_phases=phases)
    double.create("older")
    double.pass_time(1)
    id_ = double.create("newer").json()["workloadId"]
    double.pass_time(1)
    urgent = double.plane.somebody_submits("urgent", "h100", "run")
    double.pass_time(2)
    workload = double.plane.workloads[id_]
    shown = [phase for _, phase, _ in workload.history]
    after = shown[shown.index("Running") + 1 :]
    assert tuple(after[: len(phases)]) == phases
    double.plane.delete(urgent)
    double.pass_time(2)
    assert (workload.phase, len(workload.pods)) == ("Running", 2)


@pytest.mark.parametrize("zero", knobs_module.settings("backoff_limit_zero"))
def test_a_backoff_limit_of_zero_may_mean_one(make: Callable[..., Double], zero: str) -> None:
    double = make(backoff_limit_zero=zero)
    id_ = double.create(backoffLimit=0).json()["workloadId"]
    double.pass_time(1)
    workload = double.plane.workloads[id_]
    for _ in range(2):
        for pod in workload.running():
            pod.container.end(1)
        double.pass_time(1)
    assert (workload.phase, len(workload.pods)) == ("Failed", 1 if zero == "honoured" else 2)


def test_lists_may_be_late_and_may_hide_the_environment(make: Callable[..., Double]) -> None:
    double = make(listing_lag=2.0, env_in_list="hidden")
    id_ = double.create(environmentVariables=[{"name": "A", "value": "1"}]).json()["workloadId"]
    assert double.names() == []
    double.pass_time(2.5)
    (row,) = double.http.get("/api/v1/workloads").json()["workloads"]
    assert "environmentVariables" not in row
    assert double.http.get(f"{CREATE}/{id_}").json()["spec"]["environmentVariables"] == [{"name": "A", "value": "1"}]


def test_a_secret_that_is_not_there_keeps_a_workload_from_starting(double: Double) -> None:
    id_ = double.create(environmentVariables=[{"name": "KEY", "secret": {"name": "wandb", "key": "KEY"}}]).json()
    double.pass_time(1)
    workload = double.plane.workloads[id_["workloadId"]]
    assert workload.phase == "Initializing"
    assert workload.events[-1]["reason"] == "CreateContainerConfigError"


def test_a_node_that_dies_takes_its_workloads_down(double: Double) -> None:
    id_ = double.create(backoffLimit=0).json()["workloadId"]
    double.pass_time(1)
    double.plane.lose_node("h100-0")
    double.pass_time(1)
    assert double.plane.workloads[id_].phase == "Failed"
