"""The verbs that ask Run:ai about single jobs, on the double of its control plane."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import backends
from orchestrator.backends.base import JobRequest
from orchestrator.cli import main
from orchestrator.clock import SystemClock
from orchestrator.launch import Ask, new_attempt
from orchestrator.model import AttemptState, PointState, Pool, Resources
from orchestrator.paths import RootPaths
from orchestrator.planning import plan_sweep
from orchestrator.session import register
from orchestrator.spec import load
from orchestrator.store import Store
from tests.runai.plane import ControlPlane
from tests.runai.server import Server
from tests.runai.tokens import CLIENT_ID, CLIENT_SECRET

SWEEP = """\
# What does a job of Run:ai wait for?
name: asking
config: synthetic
backend: runai
pools: {h100: {gpus: 8}}
resources: {gpus: 8, ladder: [h100]}
runai:
  base_url: URL
  client_id: {file: FOLDER/id}
  client_secret: {file: FOLDER/secret}
  project: research
  image: any
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A control plane whose cluster has no nodes: everything waits."""
    with Server(ControlPlane(tmp_path_factory.mktemp("plane"), nodes=())) as server:
        yield server


@pytest.fixture(scope="module")
def sweep(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of a sweep whose only point waits for a node; its state folder `runs` lies beside it."""
    folder = tmp_path_factory.mktemp("asking")
    (folder / "id").write_text(CLIENT_ID)
    (folder / "secret").write_text(CLIENT_SECRET)
    file = folder / "asking.yaml"
    file.write_text(SWEEP.replace("URL", server.url).replace("FOLDER", str(folder)))
    paths, clock = RootPaths(folder / "runs"), SystemClock()
    paths.root.mkdir()
    store = Store.open(paths.database, clock)
    register(plan_sweep(file, [], None, None), store, file, ["sweep"], clock.now())
    (point,) = store.points("asking")
    store.move_point(point, PointState.READY)
    (point,) = store.points("asking")
    store.start_attempt(point, new_attempt(point, 1, Ask("h100"), clock.now()), "")
    attempt = store.attempts("asking")[0]
    attempt_dir = paths.attempt("asking", point.id, 1).dir
    attempt_dir.mkdir(parents=True)
    request = JobRequest(attempt.job_name, attempt.token, attempt_dir, Pool("h100", 8), Resources(gpus=8))
    handle = backends.load("runai", load(file).runai).submit(request)
    submitting = store.move_attempt(attempt, AttemptState.SUBMITTING)
    assert submitting is not None
    store.move_attempt(submitting, AttemptState.SUBMITTED, handle=handle)
    store.close()
    yield file
    shutil.rmtree(folder)


def test_why_says_what_a_pending_job_waits_for(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "asking", "--root", str(sweep.parent / "runs")]) == 0
    shown = capsys.readouterr().out
    assert "runai: phase Pending" in shown
    written = b"".join(path.read_bytes() for path in (sweep.parent / "runs").rglob("*") if path.is_file())
    assert CLIENT_SECRET.encode() not in written
    assert "Not enough resources" in shown


def test_a_control_plane_that_does_not_answer_does_not_keep_why_from_answering(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (sweep.parent / "id").rename(sweep.parent / "elsewhere")
    try:
        assert main(["why", "asking", "--root", str(sweep.parent / "runs")]) == 0
    finally:
        (sweep.parent / "elsewhere").rename(sweep.parent / "id")
    shown = capsys.readouterr().out
    assert "runai: cannot be asked now" in shown
    assert "attempt 1 on h100: submitted" in shown


def test_logs_says_where_else_to_look_and_asks_the_cluster_when_told_to(
    sweep: Path, server: Server, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    root = ["--root", str(sweep.parent / "runs")]
    assert main(["logs", "asking", *root]) == 2
    assert b"--live asks the cluster" in capfdbinary.readouterr().err
    (workload,) = server.plane.workloads.values()
    log = server.plane.cluster.log(workload)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("python: no module named orchestrator\n")
    assert main(["logs", "asking", "--live", *root]) == 0
    assert capfdbinary.readouterr().out == b"python: no module named orchestrator\n"


def test_doctor_looks_at_run_ai_as_the_sweep_file_describes_it(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--backend", "runai", "--spec", str(sweep), "--root", str(sweep.parent / "runs")])
    shown = capsys.readouterr().out
    assert "ok   Run:ai credentials" in shown
    assert "ok   Run:ai project: research" in shown
    assert CLIENT_SECRET not in shown


def test_doctor_without_an_address_says_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("name: s\nconfig: synthetic\nrunai: {client_id: {file: /none}}\n")
    assert main(["doctor", "--backend", "runai", "--spec", str(file), "--root", str(tmp_path / "runs")]) == 1
    assert "FAIL Run:ai settings: RUNAI_BASE_URL is not set" in capsys.readouterr().out
    assert main(["doctor", "--deep", "--root", str(tmp_path / "runs")]) == 2
    assert "--deep belongs to --backend runai" in capsys.readouterr().err
