from __future__ import annotations

from dataclasses import replace

from orchestrator.ledger import AttemptRow, PointRow, View
from orchestrator.model import AttemptState, Estimate, Forecast, PointState, Prediction, Verdict
from orchestrator.pace import Pace, by_steps, together


def point(index: int, factor: int, seed: int = 0, predicted_s: float | None = None) -> PointRow:
    foretold = None
    if predicted_s is not None:
        seconds = Estimate(predicted_s, predicted_s / 2, predicted_s * 2)
        foretold = Prediction("k", on={"h100": Forecast(seconds=seconds)})
    parameters = {"factor": factor, "seed": seed}
    row = PointRow("s", f"p{index}", index, f"point-{index}", parameters, {"seed": seed}, (), "h", PointState.READY)
    return replace(row, predicted=foretold)


def took(index: int, seconds: float, verdict: Verdict = Verdict.COMPLETED) -> AttemptRow:
    row = AttemptRow("s", f"p{index}", 1, f"t{index}", "job", "h100", AttemptState.JUDGED, 0.0)
    return replace(row, started_at=0.0, ended_at=seconds, verdict=verdict)


def test_replicates_of_a_setting_take_what_it_took() -> None:
    view = View.of([point(0, 64), point(1, 64, 1), point(2, 512)], [took(0, 100), took(1, 120), took(2, 10)])
    assert Pace.of(view).seconds(point(3, 64, 2), "h100") == Estimate(110, 100, 120, "measured")


def test_a_prediction_is_corrected_by_how_right_the_others_were() -> None:
    """What was predicted at 50 s and 100 s took twice as long: so will what is predicted at 200 s."""
    view = View.of([point(0, 512, predicted_s=50), point(1, 128, predicted_s=100)], [took(0, 100), took(1, 200)])
    found = Pace.of(view).seconds(point(2, 64, predicted_s=200), "h100")
    assert found is not None
    assert (found.value, found.low <= 400 <= found.high) == (400, True)


def test_a_prediction_alone_is_taken_as_it_is_and_without_anything_nothing_is_known() -> None:
    assert Pace.of(View.of([], [])).seconds(point(0, 64, predicted_s=60), "h100") == Estimate(60, 30, 120)
    assert Pace.of(View.of([], [])).seconds(point(0, 64), "h100") is None


def test_failures_tell_nothing_once_something_completed() -> None:
    failed = took(0, 1.0, Verdict.CODE_ERROR)
    other = point(2, 128)
    first = Pace.of(View.of([point(0, 64)], [failed]))
    second = Pace.of(View.of([point(0, 64), point(1, 8)], [failed, took(1, 90)]))
    assert first.seconds(other, "h100") == Estimate(1, 1, 1, "measured")
    assert second.seconds(other, "h100") == Estimate(90, 90, 90, "measured")


def test_an_attempts_own_steps_count_what_is_left() -> None:
    assert by_steps(10.0, 0, 5, None) is None
    assert by_steps(10.0, 1, 5, None) == Estimate(40.0, 20.0, 40.0, "measured")
    assert by_steps(50.0, 3, 5, 4.0) == Estimate(6.0, 4.0, 8.0, "measured")
    assert by_steps(50.0, 7, 5, 4.0) == Estimate(0.0, 0.0, 0.0, "measured")


def test_no_interval_is_narrower_than_a_tenth_to_either_side() -> None:
    one = Estimate(100, 100, 100, "measured")
    assert together([], [one] * 4, 2) == Estimate(200, 180, 220.00000000000003, "measured")
    assert together([one], [], 8).value == 100
