"""Submissions that go out together, and attempts that follow others, on a cluster that does what it is told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from orchestrator.backends.base import JobRef, JobRequest, JobState, JobStatus
from orchestrator.backends.fake import FakeBackend, Play, Reply, always
from orchestrator.backends.fake_files import fail
from orchestrator.errors import BackendError
from orchestrator.model import PointState, Verdict
from orchestrator.spec_model import SweepSpec
from tests.orchestrator.driving import Died, Rehearsal

CUDA_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.35 GiB. GPU 0 has a total capacity of 79.10 GiB\n"
)
POINTS = 5


class StuckFake(FakeBackend):
    """Says of every queued job that it will not start."""

    def poll(self, jobs: Sequence[JobRef]) -> Mapping[str, JobStatus]:
        seen = super().poll(jobs)
        stuck = JobStatus(JobState.QUEUED, reason="JobHeldAdmin", is_stuck=True)
        return {handle: stuck if status.state is JobState.QUEUED else status for handle, status in seen.items()}


def test_a_job_that_will_not_start_is_told_once(tmp_path: Path):
    rehearsal = Rehearsal(tmp_path, always(Play()), points=1, backend=StuckFake)
    rehearsal.drive()
    assert [warning for warning in rehearsal.warnings if "JobHeldAdmin" in warning] == rehearsal.warnings
    assert len(rehearsal.warnings) == 1


class ArrayFake(FakeBackend):
    """Remembers what it was given at once."""

    batches: list[list[JobRequest]]

    def submit_many(self, requests: Sequence[JobRequest]) -> Mapping[str, str | BackendError]:
        self.batches.append(list(requests))
        return {request.token: self._one(request) for request in requests}

    def _one(self, request: JobRequest) -> str | BackendError:
        try:
            return self.submit(request)
        except BackendError as error:
            return error


@pytest.fixture
def rehearse(tmp_path: Path):
    """rehearse(script) -> (the rehearsal of five points at once, the batches that its backend will get)."""

    def rehearse(script) -> tuple[Rehearsal, list[list[JobRequest]]]:
        batches: list[list[JobRequest]] = []

        def backend(cluster) -> ArrayFake:
            fake = ArrayFake(cluster)
            fake.batches = batches
            return fake

        spec = SweepSpec.model_validate({"name": "s", "budget": {"max_parallel": POINTS}})
        return Rehearsal(tmp_path, script, points=POINTS, spec=spec, backend=backend), batches

    return rehearse


def test_what_may_start_at_once_is_submitted_at_once(rehearse):
    rehearsal, batches = rehearse(always(Play()))
    view = rehearsal.drive()
    assert {point.state for point in view.points} == {PointState.SUCCEEDED}
    assert [len(batch) for batch in batches] == [POINTS]


@pytest.mark.parametrize("reply", [Reply.REJECT, Reply.DEFER, Reply.LOSE_REPLY, Reply.LOSE_REQUEST])
def test_each_of_them_gets_its_own_answer(rehearse, reply):
    unlucky: set[str] = set()

    def script(request: JobRequest, earlier: int) -> Play:
        unlucky.update([request.token] if not unlucky else [])
        return Play(reply=reply if request.token in unlucky and not earlier else Reply.ACCEPT)

    rehearsal, _ = rehearse(script)
    view = rehearsal.drive()
    states = [point.state for point in view.points]
    assert states.count(PointState.SUCCEEDED) >= POINTS - 1
    handles = [attempt.handle for history in view.attempts.values() for attempt in history if attempt.handle]
    assert len(handles) == len(set(handles)) == len(rehearsal.cluster.jobs)


def test_an_attempt_is_told_of_the_job_before_it(rehearse):
    def script(request: JobRequest, _earlier: int) -> Play:
        too_small = request.pool is not None and request.pool.name == "h100"
        return Play(on_end=fail(1, log=CUDA_OOM)) if too_small else Play()

    rehearsal, batches = rehearse(script)
    view = rehearsal.drive()
    first, second = view.history(view.points[0])
    assert (first.verdict, second.verdict) == (Verdict.GPU_OOM, Verdict.COMPLETED)
    requests = {request.token: request for batch in batches for request in batch}
    assert requests[first.token].after is None
    after = requests[second.token].after
    assert after is not None
    assert (after.handle, after.token) == (first.handle, first.token)
    assert after.attempt_dir == requests[first.token].attempt_dir


def test_whoever_dies_while_they_are_submitted_is_followed_by_one_who_submits_the_rest(rehearse):
    rehearsal, _ = rehearse(always(Play()))
    die_after, died = 0, True
    while died:
        try:
            view = rehearsal.drive(die_after)
            died = False
        except Died:
            die_after += 7
    assert {point.state for point in view.points} == {PointState.SUCCEEDED}
    assert set(rehearsal.cluster.submissions.values()) == {1}
