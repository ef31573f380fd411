"""A real job that hangs, from the sweep file's limits through the wrapper to the second attempt and the record."""

from __future__ import annotations

from pathlib import Path

from orchestrator.clock import SystemClock
from orchestrator.model import Verdict
from orchestrator.paths import RootPaths
from orchestrator.planning import plan_sweep
from orchestrator.session import Session, exit_code, register
from orchestrator.sinks.base import PointRecord, SweepEnd, SweepRecord
from orchestrator.store import Store

SWEEP = """\
# Does a job that waits for ever come to an end?
name: s
config: synthetic
overrides: [synthetic.step_seconds=0.01, synthetic.fail=hang]
backend: local
hang: {step_floor: 0.5, start_floor: 0.5, end_floor: 0.5, silence: 0.5}
retry: {backoff: {base: 0.1, max: 0.1}}
"""


class NoSink:
    """Takes everything and keeps nothing."""

    def write_sweep(self, sweep: SweepRecord) -> str | None: ...

    def write_point(self, point: PointRecord) -> None: ...

    def finish_sweep(self, end: SweepEnd) -> None: ...


def test_a_job_that_hangs_is_ended_tried_again_once_and_reported(tmp_path: Path) -> None:
    spec, paths = tmp_path / "s.yaml", RootPaths(tmp_path / "runs")
    spec.write_text(SWEEP)
    store = Store.open(paths.database, SystemClock())
    register(plan_sweep(spec, [], None, None), store, spec, ["test"], 0.0)
    view = Session("s", paths, store, NoSink(), SystemClock()).run(lambda _view: None, lambda _said: None)
    (point,) = view.points
    history = view.history(point)
    assert exit_code(view) == 1
    assert [attempt.verdict for attempt in history] == [Verdict.HANG, Verdict.HANG]
    assert "hang: the 1 retry is used up" in (point.reason or "")
    folder = paths.attempt("s", point.id, 1)
    stacks = folder.stacks.read_text()
    assert "no step for" in stacks
    assert "_hang" in stacks + folder.console.read_text(), "the function that it hangs in"
    assert "hang" in paths.report("s").read_text()
