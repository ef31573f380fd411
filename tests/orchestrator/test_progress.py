"""Progress as numbers and as words."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import AttemptState, PointState
from orchestrator.progress import Progress, Pulse, measure
from orchestrator.tui import duration, one_line
from trainer_ext.records import Heartbeat

NOW = 1_000.0


def point(index: int, state: PointState) -> PointRow:
    return PointRow("s", f"p{index}", index, f"point-{index}", {}, {}, (), "0" * 64, state)


def attempt(index: int, state: AttemptState, began: float, ended: float | None = None) -> AttemptRow:
    return AttemptRow(
        "s", f"p{index}", 1, f"t{index}", f"job-{index}", None, state, began, started_at=began, ended_at=ended
    )


def pulse(step: int) -> Pulse:
    return Pulse(Heartbeat(time=NOW, phase="run", step=step, console_bytes=0, last_output_at=None), 4)


RUNNING = View.of(
    [point(0, PointState.ACTIVE), point(1, PointState.READY)], [attempt(0, AttemptState.RUNNING, NOW - 10)]
)


def test_time_left_is_unknown_until_there_is_something_to_go_by() -> None:
    assert measure(RUNNING, {"t0": pulse(0)}, NOW, 1).seconds_left is None


def test_time_left_goes_by_the_steps_of_what_runs() -> None:
    progress = measure(RUNNING, {"t0": pulse(1)}, NOW, 1)  # 10 s for one of four steps
    assert progress.seconds_left == (40 - 10) + 40
    assert progress.running[0].step == 1


def test_time_left_goes_by_attempts_that_ended_once_there_are_some() -> None:
    view = View.of(
        [point(0, PointState.SUCCEEDED), point(1, PointState.ACTIVE), point(2, PointState.READY)],
        [attempt(0, AttemptState.JUDGED, NOW - 100, NOW - 80), attempt(1, AttemptState.RUNNING, NOW - 5)],
    )
    assert measure(view, {}, NOW, 1).seconds_left == 15 + 20
    assert measure(view, {}, NOW, 2).seconds_left == (15 + 20) / 2


def test_skipped_points_do_not_count() -> None:
    view = View.of([point(0, PointState.SUCCEEDED), point(1, PointState.SKIPPED)], [])
    progress = measure(view, {}, NOW, 1)
    assert (progress.settled, progress.total) == (1, 1)


def test_one_line_says_what_runs_and_how_long_it_takes() -> None:
    line = one_line("factor", measure(RUNNING, {"t0": pulse(1)}, NOW, 1))
    assert line == "factor: 0/2 points  1 active  1 ready | point-0 run step 1/4 0:10 | about 1:10 left"


def test_a_finished_sweep_says_done() -> None:
    done = Progress(1, {PointState.SUCCEEDED: 1}, (), None)
    assert one_line("s", done).endswith("done")
    assert one_line("s", replace(done, total=2)).endswith("time left: known after the first step")


def test_durations_read_like_a_clock() -> None:
    assert [duration(seconds) for seconds in (0, 61, 3_723)] == ["0:00", "1:01", "1:02:03"]
