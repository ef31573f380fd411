"""Progress as numbers and as words."""

from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from orchestrator.budget import Spent
from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import AttemptState, Estimate, PointState
from orchestrator.plan import Limits
from orchestrator.progress import Memory, Progress, Pulse, Running, measure
from orchestrator.tui import GIB, display, duration, news, one_line, panel
from orchestrator.waiting import Waiting
from trainer_ext.records import Heartbeat

NOW = 1_000.0
ONE, TWO = Limits(max_parallel=1), Limits(max_parallel=2)


def point(index: int, state: PointState) -> PointRow:
    return PointRow("s", f"p{index}", index, f"point-{index}", {"x": index}, {}, (), "0" * 64, state)


def attempt(index: int, state: AttemptState, began: float, ended: float | None = None) -> AttemptRow:
    return AttemptRow(
        "s", f"p{index}", 1, f"t{index}", f"job-{index}", None, state, began, started_at=began, ended_at=ended
    )


def pulse(step: int, step_s: float | None = None) -> Pulse:
    return Pulse(Heartbeat(time=NOW, phase="run", step=step, console_bytes=0, last_output_at=None, step_s=step_s), 4)


RUNNING = View.of(
    [point(0, PointState.ACTIVE), point(1, PointState.READY)], [attempt(0, AttemptState.RUNNING, NOW - 10)]
)


def seconds(progress: Progress) -> tuple[float, float, float]:
    assert progress.left is not None
    return progress.left.value, progress.left.low, progress.left.high


def test_time_left_is_unknown_until_there_is_something_to_go_by() -> None:
    assert measure(RUNNING, {"t0": pulse(0)}, NOW, ONE).left is None


def test_time_left_goes_by_the_steps_of_what_runs() -> None:
    progress = measure(RUNNING, {"t0": pulse(1)}, NOW, ONE)  # 10 s for one of four steps
    value, low, high = seconds(progress)
    assert value == (40 - 10) + 40
    assert low < value < high
    assert progress.running[0].step == 1


def test_trials_that_a_search_has_yet_to_ask_for_take_as_long_as_the_points_that_are_known() -> None:
    assert seconds(measure(RUNNING, {"t0": pulse(1)}, NOW, ONE, unasked=3))[0] == (40 - 10) + 40 + 3 * 40
    settled = View.of([point(0, PointState.SUCCEEDED)], [])
    assert measure(settled, {}, NOW, ONE, unasked=3).left is None


def test_once_a_step_has_a_length_the_start_of_the_job_no_longer_counts() -> None:
    alone = View.of([point(0, PointState.ACTIVE)], [attempt(0, AttemptState.RUNNING, NOW - 100)])
    value, low, high = seconds(measure(alone, {"t0": pulse(2, step_s=3.0)}, NOW, ONE))
    assert low <= 3.0 <= value <= 6.0 <= high


def test_time_left_goes_by_attempts_that_ended_once_there_are_some() -> None:
    view = View.of(
        [point(0, PointState.SUCCEEDED), point(1, PointState.ACTIVE), point(2, PointState.READY)],
        [attempt(0, AttemptState.JUDGED, NOW - 100, NOW - 80), attempt(1, AttemptState.RUNNING, NOW - 5)],
    )
    assert seconds(measure(view, {}, NOW, ONE))[0] == 15 + 20
    assert seconds(measure(view, {}, NOW, TWO))[0] == 20, "two at once: no less than the longest"


def test_what_is_queued_does_not_run_and_has_all_its_time_before_it() -> None:
    view = View.of(
        [point(0, PointState.SUCCEEDED), point(1, PointState.ACTIVE)],
        [attempt(0, AttemptState.JUDGED, NOW - 100, NOW - 80), attempt(1, AttemptState.QUEUED, NOW - 500)],
    )
    progress = measure(view, {}, NOW, ONE, {"t1": "Resources"})
    assert progress.running == ()
    assert seconds(progress)[0] == 20
    assert progress.waiting == (Waiting("queued: Resources", ("point-1",)),)


def test_skipped_points_do_not_count() -> None:
    view = View.of([point(0, PointState.SUCCEEDED), point(1, PointState.SKIPPED)], [])
    progress = measure(view, {}, NOW, ONE)
    assert (progress.settled, progress.total) == (1, 1)


def test_gpu_hours_are_counted_where_there_are_gpus() -> None:
    limits = Limits(max_parallel=1, gpus_per_attempt=8, gpu_hours=2.0, time_limit_s=900)
    progress = measure(RUNNING, {}, NOW, limits)
    assert progress.gpu_hours == Spent(10 * 8 / 3600, 890 * 8 / 3600)
    assert measure(RUNNING, {}, NOW, ONE).gpu_hours is None
    assert "GPU-hours: 0.0 used, at most 2.0 more by what runs, budget 2" in one_line("s", progress)


def test_one_line_says_what_runs_what_waits_and_how_long_it_takes() -> None:
    line = one_line("factor", measure(RUNNING, {"t0": pulse(1)}, NOW, ONE))
    assert line == (
        "factor: 0/2 points  1 active  1 ready | point-0 run step 1/4 0:10 | "
        "1 waits: 1 run, budget.max_parallel is 1 (point-1) | about 1:10 left (0:40-1:17)"
    )


def test_a_finished_sweep_says_done() -> None:
    done = Progress(1, {PointState.SUCCEEDED: 1}, (), None)
    assert one_line("s", done).endswith("done")
    assert one_line("s", replace(done, total=2)).endswith("time left: known after the first step")


def test_durations_read_like_a_clock() -> None:
    assert [duration(seconds) for seconds in (0, 61, 3_723)] == ["0:00", "1:01", "1:02:03"]


def busy(jobs: int) -> Progress:
    memory = Memory(61 * GIB, 66 * GIB, int(79.6 * GIB))
    running = tuple(Running(f"job-{n}", 1, "h100", "run", n, 50, 60.0, 0.1234567, memory, None) for n in range(jobs))
    waits = (Waiting("queued: Resources", tuple(f"later-{n}" for n in range(7))),)
    return Progress(jobs + 7, {PointState.ACTIVE: jobs}, running, Estimate(60.0, 50.0, 70.0), waits)


def drawn(progress: Progress, most: int) -> list[str]:
    console = Console(width=120, file=io.StringIO(), markup=False)
    with console.capture() as capture:
        console.print(panel("factor", progress, most))
    return capture.get().splitlines()


def test_the_panel_has_a_line_for_each_job_with_loss_and_memory_against_the_card() -> None:
    lines = drawn(busy(2), 20)
    assert any("job-1" in line and "1/50" in line and "0.1235" in line for line in lines)
    assert any("61.0 (peak 66.0) of 79.6" in line for line in lines)
    assert not any("host GiB" in line for line in lines), "nothing is known about it"
    assert any("7 wait: queued: Resources (later-0, later-1, later-2, ...)" in line for line in lines)


def test_the_panel_never_grows_over_the_terminal() -> None:
    lines = drawn(busy(300), 10)
    assert len(lines) < 10 + 8
    assert any("and 290 more" in line for line in lines)


def test_a_pipe_gets_a_line_for_every_change_and_none_for_time_that_passed() -> None:
    stream = io.StringIO()
    with display(Console(width=160, file=stream), "s", every_s=60.0) as screen:
        first = measure(RUNNING, {"t0": pulse(1)}, NOW, ONE)
        for later in (0.0, 1.0, 2.0):
            screen.show(measure(RUNNING, {"t0": pulse(1)}, NOW + later, ONE), NOW + later)
        screen.show(measure(RUNNING, {"t0": pulse(2)}, NOW + 3, ONE), NOW + 3)
        screen.show(measure(RUNNING, {"t0": pulse(2)}, NOW + 70, ONE), NOW + 70)
    lines = stream.getvalue().splitlines()
    assert [line.split(" | ")[1] for line in lines] == [
        "point-0 run step 1/4 0:10",
        "point-0 run step 2/4 0:13",
        "point-0 run step 2/4 1:20",
    ]
    assert news(first) == news(measure(RUNNING, {"t0": pulse(1)}, NOW + 9, ONE))
