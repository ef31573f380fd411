"""What doctor says of a control plane, and what its trial job finds out there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.backends.base import Sign
from orchestrator.backends.runai.backend import RunaiBackend
from orchestrator.backends.runai.checkup import look
from orchestrator.backends.runai.trial import Pace, Trial
from orchestrator.backends.runai.unverified import UNVERIFIED
from orchestrator.clock import SystemClock
from orchestrator.model import Pool
from orchestrator.runai_spec import RunaiSpec
from tests.runai.faults import accepted_then_dropped
from tests.runai.knobs import Knobs
from tests.runai.plane import ControlPlane
from tests.runai.server import InProcess

H100 = Pool("h100", 8)
QUICK = Pace(look_every_s=0.05, queue_s=20, phase_s=20, visible_s=10, rerun_s=0.4)


def backend_on(plane: ControlPlane, **environ: str) -> RunaiBackend:
    known = {**plane.environ("http://runai.test"), "RUNAI_IMAGE": "any", "RUNAI_PYTHON": sys.executable, **environ}
    return RunaiBackend.of(RunaiSpec(), {k: v for k, v in known.items() if v}, transport=InProcess(plane))


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    plane = ControlPlane(tmp_path / "containers", domain="http://cluster.test")
    yield plane
    plane.close()


def failed(signs: Iterator[Sign]) -> dict[str, str]:
    return {sign.check: sign.detail for sign in signs if not sign.ok}


def test_a_site_that_has_everything_is_fine_and_described(plane: ControlPlane, tmp_path: Path) -> None:
    signs = {sign.check: sign for sign in look(backend_on(plane), tmp_path, [H100])}
    assert all(sign.ok for sign in signs.values())
    assert "research" in signs["Run:ai project"].detail
    assert "2.24" in signs["Run:ai cluster"].detail
    assert "h100" in signs["Run:ai node pools"].detail
    assert str(tmp_path) in signs["Run:ai storage"].detail


@pytest.mark.parametrize(
    ("environ", "check", "message"),
    [
        ({"RUNAI_CLIENT_SECRET": "wrong"}, "Run:ai credentials", "the credentials are refused"),
        ({"RUNAI_CLIENT_SECRET": ""}, "Run:ai credentials", "the variable RUNAI_CLIENT_SECRET is not set"),
        ({"RUNAI_PROJECT": "reserch"}, "Run:ai project", "did you mean `research`"),
        ({"RUNAI_IMAGE": ""}, "Run:ai image", "RUNAI_IMAGE"),
        ({"RUNAI_MOUNTS": "[{pvc: p, path: /in, local: /elsewhere}]"}, "Run:ai storage", "beneath no mount"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(
    plane: ControlPlane, tmp_path: Path, environ: dict[str, str], check: str, message: str
) -> None:
    assert message in failed(look(backend_on(plane, **environ), tmp_path))[check]


def test_a_pool_that_the_cluster_has_not_is_named(plane: ControlPlane, tmp_path: Path) -> None:
    pool = Pool("b200", 8, options={"node_pool": "b200-192"})
    assert "b200-192" in failed(look(backend_on(plane), tmp_path, [pool]))["Run:ai node pools"]


def test_the_page_on_run_ai_has_every_open_question() -> None:
    page = (Path(__file__).parents[4] / "docs" / "runai.md").read_text()
    for code, question in UNVERIFIED.items():
        tick = " ✓ " if question.tried else "  "
        assert f"| `{code}` | {question.question} | {question.therefore} |{tick}|\n" in page


def test_the_trial_says_something_of_every_open_question_and_leaves_nothing(
    plane: ControlPlane, tmp_path: Path
) -> None:
    signs = list(Trial(backend_on(plane), tmp_path, SystemClock(), H100, pace=QUICK).run())
    assert failed(iter(signs)) == {}
    said = {sign.check.removeprefix("assumption ") for sign in signs}
    assert UNVERIFIED.keys() <= said
    answered = {sign.check.removeprefix("assumption ") for sign in signs if "not to be tried" not in sign.detail}
    assert {code for code, question in UNVERIFIED.items() if question.tried} <= answered
    assert [path.name for path in tmp_path.iterdir()] == ["containers"]
    assert plane.listed(deleted=False) == []


def test_the_trial_tells_how_this_control_plane_behaves(tmp_path: Path) -> None:
    knobs = Knobs(duplicate_status=400, env_in_list="hidden", deleted_status=200, backoff_limit_zero="raised")
    plane = ControlPlane(tmp_path / "containers", knobs, domain="http://cluster.test")
    try:
        signs = {sign.check: sign for sign in Trial(backend_on(plane), tmp_path, SystemClock(), H100, pace=QUICK).run()}
    finally:
        plane.close()
    for code, words in (
        ("duplicate_status", "400: workload with name"),
        ("env_in_list", "lists hide the environment"),
        ("deleted_status", "200 with a date of deletion"),
        ("backoff_limit_zero", "started 3 times"),
    ):
        assert words in signs[f"assumption {code}"].detail
    assert [check for check, sign in signs.items() if not sign.ok] == ["assumption backoff_limit_zero"]


def test_a_trial_whose_container_cannot_write_says_where_it_looked_and_cleans_up(
    plane: ControlPlane, tmp_path: Path
) -> None:
    mounts = f"[{{pvc: p, path: /not/here, local: {tmp_path}}}]"
    pace = Pace(look_every_s=0.05, queue_s=20, phase_s=20, visible_s=0.3, rerun_s=0.1)
    backend = backend_on(plane, RUNAI_MOUNTS=mounts)
    said = failed(Trial(backend, tmp_path, SystemClock(), H100, pace=pace).run())["trial job"]
    assert "wrote nothing to /not/here" in said
    assert "check runai.mounts" in said
    listed = backend.client.get("/api/v1/workloads")["workloads"]
    assert {row["phase"] for row in listed} <= {"Deleting"}


def test_a_trial_whose_submission_lost_its_answer_leaves_no_workload(plane: ControlPlane, tmp_path: Path) -> None:
    plane.faults.add(accepted_then_dropped())
    backend = backend_on(plane)
    said = failed(Trial(backend, tmp_path, SystemClock(), H100, pace=QUICK).run())["trial job"]
    assert "it may have worked" in said
    assert len(plane.workloads) == 1
    assert {row["phase"] for row in backend.client.get("/api/v1/workloads")["workloads"]} <= {"Deleting"}
