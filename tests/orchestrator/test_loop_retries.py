"""Retries on a cluster that does what it is told to: what the next attempt gets, when it comes, and what the record says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orchestrator.backends.base import JobRequest
from orchestrator.backends.fake import Play, Reply, always
from orchestrator.backends.fake_files import fail, succeed, write_outcome
from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import PointState, Verdict
from orchestrator.paths import AttemptPaths
from orchestrator.snapshot import sweep_snapshot
from orchestrator.spec_model import SweepSpec
from tests.orchestrator.driving import Rehearsal
from trainer_ext.records import AttemptSpec, Checkpoint, Claim

CUDA_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.35 GiB. GPU 0 has a total capacity of 79.10 GiB\n"
)


def rehearse(tmp_path: Path, script: Callable[[JobRequest, int], Play], points: int = 1, **spec: object) -> Rehearsal:
    keys = {"name": "s", "budget": {"max_parallel": 1}, **spec}
    return Rehearsal(tmp_path, script, points=points, spec=SweepSpec.model_validate(keys))


def only(view: View) -> tuple[PointRow, tuple[AttemptRow, ...]]:
    (point,) = view.points
    return point, view.history(point)


def events(rehearsal: Rehearsal) -> list[str]:
    return [event.detail or "" for event in rehearsal.store.events("s")]


def spec_of(request: JobRequest) -> AttemptSpec:
    return AttemptSpec.from_json(AttemptPaths(request.attempt_dir).spec.read_bytes())


# ---- deferral --------------------------------------------------------------------------------------------------------


def test_a_quota_refusal_waits_and_submits_the_same_attempt_again(tmp_path: Path) -> None:
    def script(_request: JobRequest, earlier: int) -> Play:
        return Play(reply=Reply.DEFER if earlier < 3 else Reply.ACCEPT)

    rehearsal = rehearse(tmp_path, script)
    began = rehearsal.clock.now()
    point, (attempt,) = only(rehearsal.drive())
    assert (point.state, attempt.n, attempt.deferrals) == (PointState.SUCCEEDED, 1, 3)
    assert list(rehearsal.cluster.submissions.values()) == [4]
    assert rehearsal.clock.now() - began >= 5 + 20 + 80, "each wait is longer than the one before"
    assert sum("deferred" in event for event in events(rehearsal)) == 3
    assert any("has no room" in warning for warning in rehearsal.warnings)


def test_a_deferred_attempt_can_be_cancelled_without_waiting(tmp_path: Path) -> None:
    rehearsal = rehearse(tmp_path, always(Play(reply=Reply.DEFER)))
    began = rehearsal.clock.now()

    def observe(view: View) -> None:
        if any(row.deferrals >= 4 and not row.cancel_requested for row in view.history(view.points[0])):
            rehearsal.store.cancel_sweep("s")

    point, _ = only(rehearsal.drive(observe=observe))
    assert point.state is PointState.CANCELLED
    assert rehearsal.clock.now() - began < 300


# ---- waits -----------------------------------------------------------------------------------------------------------


def test_retries_of_one_cause_come_later_and_later(tmp_path: Path) -> None:
    rehearsal = rehearse(tmp_path, always(Play(on_end=fail(None, signal=9))), retry={"budgets": {"unknown": 3}})
    point, history = only(rehearsal.drive())
    assert point.state is PointState.FAILED
    gaps = [later.created_at - (earlier.ended_at or 0) for earlier, later in itertools.pairwise(history)]
    assert [round(gap / 5) for gap in gaps] == [1, 4, 16]


def test_a_point_that_waits_leaves_its_place_to_others(tmp_path: Path) -> None:
    def script(request: JobRequest, _earlier: int) -> Play:
        first = spec_of(request).config["x"] == 0 and request.name.endswith("-1")
        return Play(on_end=fail(None, signal=9)) if first else Play()

    rehearsal = rehearse(tmp_path, script, points=2)
    view = rehearsal.drive()
    assert {point.state for point in view.points} == {PointState.SUCCEEDED}
    again, other = view.history(view.points[0])[-1], view.history(view.points[1])[0]
    assert other.created_at < again.created_at


# ---- what the next attempt gets ----------------------------------------------------------------------------------------


def test_the_next_attempt_avoids_the_node_that_failed(tmp_path: Path) -> None:
    asked: list[tuple[str, ...]] = []

    def dies(request: JobRequest, _began: float, _ended: float) -> None:
        claim = Claim(token=request.token, host="node-7", pid=1, process_started_at=0.0, time=0.0)
        AttemptPaths(request.attempt_dir).claim.write_text(claim.to_json())

    def script(request: JobRequest, _earlier: int) -> Play:
        asked.append(request.resources.exclude_nodes)
        return Play(on_end=dies, reason="NODE_FAIL") if len(asked) == 1 else Play()

    rehearsal = rehearse(tmp_path, script)
    point, (first, second) = only(rehearsal.drive())
    assert point.state is PointState.SUCCEEDED
    assert (first.verdict, first.measured and first.measured.node) == (Verdict.NODE_FAILURE, "node-7")
    assert asked == [(), ("node-7",)]
    assert second.exclude_nodes == ("node-7",)


def test_a_patch_at_the_top_of_the_ladder_reaches_the_job_and_the_report(tmp_path: Path) -> None:
    def script(request: JobRequest, _earlier: int) -> Play:
        return Play() if spec_of(request).config["x"] == 3 else Play(on_end=fail(1, log=CUDA_OOM))

    retry = {"budgets": {"gpu_oom": 3}, "gpu_oom": {"patch": {"x": "x + 1.5"}}}
    rehearsal = Rehearsal(tmp_path, script, points=3, spec=SweepSpec.model_validate({"name": "s", "retry": retry}))
    rehearsal.store.cancel_sweep("s")  # keep the point with x = 2 alone
    row = rehearsal.store.points("s")[2]
    rehearsal.store.rerun(row)
    view = rehearsal.drive()
    point = view.points[2]
    assert [(a.pool, a.patch) for a in view.history(point)] == [("h100", {}), ("h200", {}), ("h200", {"x": 3})]
    assert point.state is PointState.SUCCEEDED
    spec = AttemptSpec.from_json(rehearsal.paths.attempt("s", point.id, 3).spec.read_bytes())
    assert (spec.config["x"], spec.overrides) == (3, ["x=2", "++x=3"])
    assert json.loads(rehearsal.paths.attempt("s", point.id, 3).config.read_text())["x"] == 3
    drawn = sweep_snapshot(rehearsal.store, rehearsal.paths, "s").points[2]
    assert (drawn.attempts[-1].patch, drawn.attempts[-1].unpatched) == ({"x": 3}, {"x": 2})
    assert not any(seen.measured.steps and seen.predicted for seen in rehearsal.store.measurements())


def test_a_patch_that_comes_to_nothing_fails_the_point_in_words(tmp_path: Path) -> None:
    """0 divided by two is 0: there is nothing left to change."""
    retry = {"gpu_oom": {"patch": {"x": "x / 2"}}}
    rehearsal = rehearse(tmp_path, always(Play(on_end=fail(1, log=CUDA_OOM))), retry=retry)
    point, history = only(rehearsal.drive())
    assert (point.state, len(history)) == (PointState.FAILED, 2)
    assert "no patch: x: `x / 2` leaves 0 as it is" in (point.reason or "")


def test_a_time_limit_goes_on_from_a_checkpoint_that_advanced(tmp_path: Path) -> None:
    def cut_off(request: JobRequest, began: float, ended: float) -> None:
        saved = Checkpoint(saved_after=1)
        AttemptPaths(request.attempt_dir).checkpoint.write_text(saved.to_json())
        write_outcome(request, began, ended, signal=15, steps=[1], stop_reason="time_limit")

    def script(request: JobRequest, _earlier: int) -> Play:
        return Play(on_end=cut_off if request.name.endswith("-1") else succeed)

    rehearsal = rehearse(tmp_path, script)
    point, history = only(rehearsal.drive())
    assert [attempt.verdict for attempt in history] == [Verdict.TIME_LIMIT, Verdict.COMPLETED]
    assert point.state is PointState.SUCCEEDED
    assert any("goes on after step 1" in event for event in events(rehearsal))


# ---- an out-of-memory teaches -------------------------------------------------------------------------------------------


def test_an_out_of_memory_moves_waiting_replicates_to_the_larger_pool_and_says_why(tmp_path: Path) -> None:
    def script(request: JobRequest, _earlier: int) -> Play:
        assert request.pool is not None
        return Play(on_end=fail(1, log=CUDA_OOM)) if request.pool.name == "h100" else Play()

    rehearsal = rehearse(tmp_path, script, points=3)
    seeds = [
        replace(point, parameters={"factor": 32, "seed": n}, replicate={"seed": n})
        for n, point in enumerate(rehearsal.planned)
    ]
    rehearsal.put(seeds)
    view = rehearsal.drive()
    pools = [[attempt.pool for attempt in view.history(point)] for point in view.points]
    assert pools == [["h100", "h200"], ["h200"], ["h200"]]
    assert {point.state for point in view.points} == {PointState.SUCCEEDED}
    moved = [event for event in events(rehearsal) if event.startswith("pool h200: point-0, of the same settings")]
    assert len(moved) == 2
    assert all("ran out of GPU memory on h100" in event for event in moved)


def test_points_that_need_less_stay_where_they_would_have_started(tmp_path: Path) -> None:
    def script(request: JobRequest, _earlier: int) -> Play:
        large = request.pool is not None and request.pool.name == "h100" and spec_of(request).config["x"] == 0
        return Play(on_end=fail(1, log=CUDA_OOM)) if large else Play()

    view = rehearse(tmp_path, script, points=2).drive()
    assert [[attempt.pool for attempt in view.history(point)] for point in view.points] == [["h100", "h200"], ["h100"]]
