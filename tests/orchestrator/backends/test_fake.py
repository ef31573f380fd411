"""The fake cluster does what its script says, so that tests of the loop can believe it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from orchestrator.backends import load
from orchestrator.backends.base import JobRef, JobRequest, JobState
from orchestrator.backends.fake import FakeBackend, FakeCluster, Play, Reply, always, by_name
from orchestrator.backends.fake_files import fail
from orchestrator.clock import FakeClock
from orchestrator.errors import BackendError, SubmitUncertain, Unobservable
from orchestrator.model import Pool, Resources
from orchestrator.paths import AttemptPaths
from trainer_ext.records import NPZ_KEYS, AttemptSpec, Outcome


@pytest.fixture
def request_(tmp_path) -> JobRequest:
    return make_request(tmp_path, "job-a1")


def make_request(tmp_path, name: str) -> JobRequest:
    request = JobRequest(name, f"token-{name}", tmp_path / name, None, Resources())
    request.attempt_dir.mkdir()
    spec = AttemptSpec(
        token=request.token,
        sweep="s",
        point="p",
        point_hash="h",
        attempt=1,
        job_name=name,
        expected_steps=2,
        expected_npz=2,
        npz_glob="influence/step_*.npz",
    )
    AttemptPaths(request.attempt_dir).spec.write_text(spec.to_json())
    return request


def ref(request: JobRequest, handle: str) -> JobRef:
    return JobRef(handle, request.name, request.token, request.attempt_dir)


def cluster_that_plays(play: Play) -> FakeCluster:
    return FakeCluster(always(play), FakeClock())


def states(cluster: FakeCluster, job: JobRef, *, seconds: int) -> list[JobState | None]:
    """What polling once a second shows."""
    shown = []
    for _ in range(seconds):
        status = FakeBackend(cluster).poll([job]).get(job.handle)
        shown.append(status.state if status else None)
        cluster.clock.sleep(1.0)
    return shown


def test_the_timeline_is_followed(request_):
    timeline = ((0, JobState.QUEUED), (2, JobState.RUNNING), (3, None), (4, JobState.QUEUED), (5, JobState.GONE))
    cluster = cluster_that_plays(Play(timeline=timeline))
    job = ref(request_, FakeBackend(cluster).submit(request_))
    expected = [JobState.QUEUED, JobState.QUEUED, JobState.RUNNING, None, JobState.QUEUED, JobState.GONE]
    assert states(cluster, job, seconds=6) == expected
    assert not AttemptPaths(request_.attempt_dir).outcome.exists()


def test_success_keeps_every_promise_of_the_attempt(request_):
    cluster = cluster_that_plays(Play(exit_code=0, reason="COMPLETED"))
    backend = FakeBackend(cluster)
    job = ref(request_, backend.submit(request_))
    cluster.clock.sleep(10.0)
    status = backend.poll([job])[job.handle]
    assert (status.state, status.exit_code, status.reason) == (JobState.ENDED, 0, "COMPLETED")
    paths = AttemptPaths(request_.attempt_dir)
    outcome = Outcome.from_json(paths.outcome.read_text())
    assert (outcome.exit_code, outcome.steps) == (0, [1, 2])
    assert outcome.ended_at - outcome.started_at == pytest.approx(1.0)
    assert [json.loads(line)["step"] for line in paths.metrics.read_text().splitlines()] == [1, 2]
    assert {file["path"] for file in outcome.outputs} >= {"influence/step_000001.npz", "influence/step_000002.npz"}
    with np.load(paths.influence / "step_000002.npz", allow_pickle=False) as arrays:
        assert set(arrays) == set(NPZ_KEYS)
        assert (np.isnan(arrays["scores"]) == ~arrays["mask"]).all()


def test_a_failure_leaves_its_log_and_exit_code(request_):
    cluster = cluster_that_plays(Play(on_end=fail(1, log="torch.OutOfMemoryError: CUDA out of memory.\n")))
    job = ref(request_, FakeBackend(cluster).submit(request_))
    assert states(cluster, job, seconds=3)[-1] is JobState.ENDED
    paths = AttemptPaths(request_.attempt_dir)
    assert Outcome.from_json(paths.outcome.read_text()).exit_code == 1
    assert "OutOfMemory" in paths.console.read_text()


def test_a_job_may_end_without_a_trace(request_):
    cluster = cluster_that_plays(Play(on_end=None))
    job = ref(request_, FakeBackend(cluster).submit(request_))
    assert states(cluster, job, seconds=3)[-1] is JobState.ENDED
    assert not AttemptPaths(request_.attempt_dir).outcome.exists()


@pytest.mark.parametrize(
    ("reply", "error", "exists"),
    [
        (Reply.REJECT, BackendError, False),
        (Reply.LOSE_REPLY, SubmitUncertain, True),
        (Reply.LOSE_REQUEST, SubmitUncertain, False),
    ],
)
def test_submissions_go_wrong_as_scripted(request_, reply, error, exists):
    cluster = cluster_that_plays(Play(reply))
    with pytest.raises(error) as raised:
        FakeBackend(cluster).submit(request_)
    assert type(raised.value) is error
    assert (FakeBackend(cluster).find(request_) is not None) == exists


def test_plays_go_by_name_and_submission(tmp_path):
    plays = {"a": [Play(Reply.LOSE_REQUEST), Play()], "b": [Play(Reply.REJECT)]}
    backend = FakeBackend(FakeCluster(by_name(plays), FakeClock()))
    first, second, other = (make_request(tmp_path, name) for name in ("a", "b", "c"))
    with pytest.raises(SubmitUncertain):
        backend.submit(first)
    assert backend.submit(first)
    assert backend.submit(other)
    with pytest.raises(BackendError):
        backend.submit(second)


def test_an_unreachable_cluster_answers_nothing(request_):
    cluster = cluster_that_plays(Play())
    backend = FakeBackend(cluster)
    job = ref(request_, backend.submit(request_))
    cluster.unreachable = True
    for ask in (lambda: backend.poll([job]), lambda: backend.find(request_), lambda: backend.cancel(job)):
        with pytest.raises(Unobservable):
            ask()
    with pytest.raises(SubmitUncertain):
        backend.submit(request_)
    cluster.unreachable = False
    assert backend.poll([job])


def test_a_job_cancelled_while_it_waits_leaves_nothing(request_):
    cluster = cluster_that_plays(Play())
    backend = FakeBackend(cluster)
    job = ref(request_, backend.submit(request_))
    backend.cancel(job)
    assert states(cluster, job, seconds=5) == [JobState.ENDED] * 5
    assert [path.name for path in request_.attempt_dir.iterdir()] == ["attempt.json"]


def test_pools_are_those_of_the_cluster():
    pools = [Pool("h100", 8, 81_559)]
    assert FakeBackend(FakeCluster(pools=pools)).pools() == pools


def test_by_name_it_runs_everything_to_success():
    assert load("fake").pools() == ()
