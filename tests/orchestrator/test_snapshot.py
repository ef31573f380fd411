"""From the store to the report: lineage, the deciding attempt's figures, and who is left out."""

from __future__ import annotations

from pathlib import Path

from orchestrator.backends.base import JobRequest
from orchestrator.backends.fake import Play, always
from orchestrator.backends.fake_files import fail
from orchestrator.reporting import write_report
from orchestrator.snapshot import sweep_snapshot
from tests.orchestrator.driving import Rehearsal, point

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.35 GiB.\n"


def small_pool_is_too_small(request: JobRequest, _earlier: int) -> Play:
    return Play(on_end=fail(1, log=OOM)) if request.pool is not None and request.pool.name == "h100" else Play()


def test_a_snapshot_tells_every_attempt_and_takes_its_figures_from_the_last(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, small_pool_is_too_small, points=1)
    rehearsal.drive()
    snapshot = sweep_snapshot(rehearsal.store, rehearsal.paths, "s")
    (shown,) = snapshot.points
    assert [(attempt.pool, attempt.verdict) for attempt in shown.attempts] == [
        ("h100", "gpu_oom"),
        ("h200", "completed"),
    ]
    assert sorted(shown.metrics) == [1, 2]
    assert [file.valid for file in shown.npz] == [5, 5]
    assert (snapshot.state, snapshot.axes, snapshot.expected_steps) == ("succeeded", ("x",), 2)
    assert shown.folder == f"{shown.id}/2"


def test_points_that_left_the_sweep_file_before_they_ran_are_not_shown(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, always(Play()), points=3)
    rehearsal.store.put_sweep(rehearsal.store.sweep("s"), [point(0)])
    rehearsal.drive()
    assert [shown.name for shown in sweep_snapshot(rehearsal.store, rehearsal.paths, "s").points] == ["point-0"]


def test_the_report_is_drawn_alike_from_the_same_store(tmp_path: Path) -> None:
    rehearsal = Rehearsal(tmp_path, small_pool_is_too_small)
    rehearsal.drive()
    path = write_report(rehearsal.store, rehearsal.paths, "s", print)
    first = path.read_bytes()
    path.unlink()
    assert write_report(rehearsal.store, rehearsal.paths, "s", print).read_bytes() == first
    assert b"h100" in first
    assert b"h200" in first
