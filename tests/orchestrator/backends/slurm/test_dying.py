"""The orchestrator dies before or after a command that changes something on the cluster; the next one goes on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.backends.base import JobRequest
from orchestrator.backends.fake import Play, always
from orchestrator.backends.fake_files import fail, succeed
from orchestrator.backends.slurm.backend import SlurmBackend
from orchestrator.backends.slurm.commands import Reply
from orchestrator.job.claim import take
from orchestrator.model import PointState, Resources, Verdict
from orchestrator.paths import AttemptPaths
from orchestrator.spec_model import SweepSpec
from tests.orchestrator.backends.slurm.double import SlurmDouble
from tests.orchestrator.driving import Died, Fuse, Rehearsal
from trainer_ext.records import AttemptSpec, Claim

CUDA_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.35 GiB. GPU 0 has a total capacity of 79.10 GiB\n"
)
CHANGING = {"sbatch", "requeuehold", "update", "release", "hold", "scancel"}
POINTS = 3
STEPS = 1 + 3 * POINTS
"""One array on h100, then for each point: requeuehold, update, release."""


@dataclass
class Cluster:
    """Every job runs out of memory on h100 and succeeds on h200."""

    rehearsal: Rehearsal
    double: SlurmDouble = field(init=False)
    fuse: Fuse = field(default_factory=Fuse)
    runs: Counter[str] = field(default_factory=Counter)
    """Attempt folder -> jobs that ran it."""

    def __post_init__(self) -> None:
        self.double = SlurmDouble(now=self.rehearsal.clock.now, play=self.run)

    def run(self, folder: Path) -> None:
        paths = AttemptPaths(folder)
        spec = AttemptSpec.from_json(paths.spec.read_bytes())
        now = self.rehearsal.clock.now()
        if not take(paths.claim, Claim(token=spec.token, host="n", pid=1, process_started_at=now, time=now)):
            return
        self.runs[str(folder)] += 1
        end = succeed if spec.pool == "h200" else fail(1, log=CUDA_OOM)
        end(JobRequest(spec.job_name, spec.token, folder, None, Resources()), now, now + 1)

    def command(self, command: Sequence[str], timeout_s: float = 60.0) -> Reply:
        deadly = bool(CHANGING & set(command[:2]))
        if deadly:
            self.fuse.burn()
        reply = self.double(command, timeout_s)
        if deadly:
            self.fuse.burn()
        return reply

    def backend(self, _cluster: object = None) -> SlurmBackend:
        return SlurmBackend(self.command, self.rehearsal.clock)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    spec = SweepSpec.model_validate(
        {"name": "s", "budget": {"max_parallel": POINTS}, "preflight": {"choose_pool": False}}
    )
    rehearsal = Rehearsal(tmp_path, always(Play()), points=POINTS, spec=spec)
    made = Cluster(rehearsal)
    rehearsal.backend = made.backend  # type: ignore[assignment]
    return made


def assert_each_point_took_one_job_and_two_attempts(cluster: Cluster, view) -> None:
    assert {point.state for point in view.points} == {PointState.SUCCEEDED}
    for point in view.points:
        verdicts = [(attempt.pool, attempt.verdict) for attempt in view.history(point)]
        assert verdicts == [("h100", Verdict.GPU_OOM), ("h200", Verdict.COMPLETED)]
    assert set(cluster.runs.values()) == {1}
    assert len(cluster.runs) == 2 * POINTS


def test_an_undisturbed_sweep_takes_as_many_steps_as_the_others_die_at(cluster):
    cluster.fuse = Fuse(1000)
    view = cluster.rehearsal.drive()
    assert_each_point_took_one_job_and_two_attempts(cluster, view)
    assert 1000 - cluster.fuse.left == 2 * STEPS
    assert len(cluster.double.jobs) == POINTS
    assert {job.options["partition"] for job in cluster.double.jobs.values()} == {"h200"}


@pytest.mark.parametrize("at", range(2 * STEPS))
def test_whoever_dies_there_leaves_nothing_undone_and_nothing_done_twice(cluster, at):
    cluster.fuse = Fuse(at)
    with pytest.raises(Died):
        cluster.rehearsal.drive()
    cluster.fuse = Fuse()
    view = cluster.rehearsal.drive()
    assert_each_point_took_one_job_and_two_attempts(cluster, view)
    assert len(cluster.double.jobs) == POINTS
    assert not any(job.held for job in cluster.double.jobs.values())


def test_dying_again_and_again_does_not_either(cluster):
    lives, view = 0, None
    while view is None:
        cluster.fuse = Fuse(lives)  # each gets half a step further than the last one
        lives += 1
        with suppress(Died):
            view = cluster.rehearsal.drive()
    assert lives > POINTS
    assert_each_point_took_one_job_and_two_attempts(cluster, view)
    tickets = [json.loads(path.read_text()) for path in cluster.rehearsal.root.rglob("slurm.json")]
    assert len(tickets) == 2 * POINTS
