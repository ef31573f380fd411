"""Looking at a sweep on the fake cluster while its loop drives it: from the store and the attempt folders alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.backends.base import JobRef, JobState, JobStatus
from orchestrator.backends.fake import FakeBackend, FakeCluster, Play, always
from orchestrator.ledger import View
from orchestrator.model import AttemptState
from orchestrator.paths import AttemptPaths
from orchestrator.progress import Progress
from orchestrator.store import open_reader
from orchestrator.tui import one_line
from orchestrator.watching import Watcher
from tests.orchestrator.driving import Rehearsal
from trainer_ext.records import Heartbeat, MemorySample

GIB = 1024**3


def watch(rehearsal: Rehearsal) -> list[Progress]:
    """Drive to the end, looking at every tick through a store that cannot write."""
    reader = open_reader(rehearsal.paths.database, rehearsal.clock)
    watcher = Watcher("s", rehearsal.paths, reader)
    seen: list[Progress] = []

    def observe(_view: View) -> None:
        now = rehearsal.clock.now()
        seen.append(watcher.look(reader.view("s"), rehearsal.spec, now))

    rehearsal.drive(observe=observe)
    return seen


def test_a_sweep_is_seen_from_its_first_point_to_its_last(tmp_path: Path) -> None:
    seen = watch(Rehearsal(tmp_path, always(Play()), points=3))
    assert [progress.settled for progress in seen] == sorted(progress.settled for progress in seen)
    assert (seen[0].settled, seen[-1].settled, seen[-1].waiting) == (0, 3, ())
    assert max(len(progress.running) for progress in seen) == 2
    assert one_line("s", seen[-1]).endswith("done")
    reasons = {group.why for progress in seen for group in progress.waiting}
    assert {"queued", "2 run, budget.max_parallel is 2"} <= reasons
    hours = [progress.gpu_hours.used for progress in seen if progress.gpu_hours]
    assert hours == sorted(hours)
    left = [progress.left for progress in seen if progress.left and progress.settled < 3]
    assert left
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in left)


def test_what_a_job_writes_is_read_as_it_comes_and_what_it_has_not_is_left_out(tmp_path: Path) -> None:
    long = Play(timeline=((0.0, JobState.RUNNING), (60.0, JobState.ENDED)))
    rehearsal = Rehearsal(tmp_path, always(long), points=1)
    reader = open_reader(rehearsal.paths.database, rehearsal.clock)
    watcher = Watcher("s", rehearsal.paths, reader)
    seen: list[Progress] = []

    def observe(view: View) -> None:
        [history] = [*view.attempts.values()] or [()]
        if not history or history[-1].state is not AttemptState.RUNNING or len(seen) == 3:
            return
        folder = rehearsal.paths.attempt("s", history[-1].point, 1)
        write(folder, len(seen))
        seen.append(watcher.look(reader.view("s"), rehearsal.spec, rehearsal.clock.now()))

    rehearsal.drive(observe=observe)
    first, second, third = (progress.running[0] for progress in seen)
    assert (first.step, first.expected_steps, first.loss, first.gpu, first.host) == (0, 2, None, None, None)
    assert (second.step, second.loss, second.state) == (1, 0.5, "run")
    assert second.gpu is not None
    assert (second.gpu.used, second.gpu.peak, second.gpu.total) == (70 * GIB, 70 * GIB, 80 * GIB)
    assert third.gpu is not None
    assert (third.gpu.used, third.gpu.peak) == (40 * GIB, 70 * GIB)
    assert third.loss is not None
    assert math.isnan(third.loss), "a loss that is no number is worth seeing"
    assert third.host is not None
    assert (third.host.used, third.host.total) == (3 * GIB, None)


def write(folder: AttemptPaths, look: int) -> None:
    """What is there at the n-th look: nothing; a step; another step, half a line and nonsense."""
    if look == 0:
        return
    beat = Heartbeat(time=0.0, phase="run", step=look, console_bytes=0, last_output_at=None)
    folder.heartbeat.write_text(beat.to_json())
    sample = MemorySample(
        time=0.0, gpu_used=[5 * GIB, (70 if look == 1 else 40) * GIB], gpu_total=[80 * GIB] * 2, process_pss=3 * GIB
    )
    with folder.memory.open("a") as file:
        file.write(sample.to_json() + "\n" + ("" if look == 1 else 'nonsense\n{"time": 1'))
    with folder.metrics.open("a") as file:
        loss = 0.5 if look == 1 else None  # as verl's writer spells NaN
        file.write(json.dumps({"step": look, "data": {"actor/loss": loss, "lr": 1e-6}}) + "\n")


@dataclass
class Busy(FakeBackend):
    """A cluster that says what its queued jobs wait for, and changes its mind at every question."""

    cluster: FakeCluster
    asked: int = 0

    def __post_init__(self) -> None:
        super().__init__(self.cluster)

    def poll(self, jobs: Sequence[JobRef]) -> Mapping[str, JobStatus]:
        self.asked += 1
        reason = None if self.asked == 1 else ("Priority", "Resources")[self.asked % 2]
        seen = super().poll(jobs)
        return {
            job: replace(status, reason=reason) if status.state is JobState.QUEUED else status
            for job, status in seen.items()
        }


def test_the_schedulers_reason_is_shown_as_it_is_now_and_noted_once_a_minute_at_most(tmp_path: Path) -> None:
    """The first answer after a submission seldom has one."""
    slow = Play(timeline=((0.0, JobState.QUEUED), (150.0, JobState.RUNNING), (151.0, JobState.ENDED)))
    rehearsal = Rehearsal(tmp_path, always(slow), points=1, backend=Busy)
    watcher = Watcher("s", rehearsal.paths, rehearsal.store)
    seen: list[str] = []

    def observe(view: View) -> None:
        for group in watcher.look(view, rehearsal.spec, rehearsal.clock.now()).waiting:
            seen.extend([group.why] if seen[-1:] != [group.why] else [])
            rehearsal.clock.sleep(7.0 if "queued" in group.why else 0.0)

    rehearsal.drive(observe=observe)
    queued = [why for why in seen if why.startswith("queued")]
    assert queued[:2] == ["queued", "queued: Priority"]
    assert len(queued) == 4, "150 s of a mind that changes every few seconds"
    assert set(queued[2:]) == {"queued: Priority", "queued: Resources"}
