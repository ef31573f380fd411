"""What a sweep's own history says of how long things take."""

from __future__ import annotations

from orchestrator.ledger import AttemptRow, Measured, PointRow, View
from orchestrator.model import AttemptState, Estimate, Forecast, PointState, Prediction, Verdict
from orchestrator.peers import NOTHING_USUAL, Usual, usual


def point(index: int, cell: int, formula_s: float | None = None) -> PointRow:
    forecast = Forecast(step_s=Estimate(formula_s, formula_s, formula_s)) if formula_s else Forecast()
    predicted = Prediction("job", formula={"h100": forecast, "h200": forecast})
    parameters = {"x": cell, "seed": index}
    return PointRow(
        "s", f"p{index}", index, "p", parameters, {"seed": index}, (), "", PointState.SUCCEEDED, predicted=predicted
    )


def done(index: int, step_s: float | None, start_s: float | None = None, pool: str = "h100") -> AttemptRow:
    seen = Measured(steps=2, step_s=step_s, start_s=start_s)
    return AttemptRow(
        "s", f"p{index}", 1, "t", "j", pool, AttemptState.JUDGED, 0.0, verdict=Verdict.COMPLETED, measured=seen
    )


def test_a_sweep_without_history_knows_nothing() -> None:
    row = point(0, 0)
    assert usual(View.of([row], []), row, "h100") == NOTHING_USUAL


def test_replicates_on_the_same_pool_speak_for_each_other_by_their_median() -> None:
    rows = [point(index, 0) for index in range(4)]
    view = View.of(rows, [done(1, 10.0, 100.0), done(2, 12.0, 90.0), done(3, 30.0, 95.0)])
    assert usual(view, rows[0], "h100") == Usual(12.0, 95.0)


def test_other_settings_count_by_their_longest_scaled_by_what_is_predicted() -> None:
    rows = [point(0, 0, formula_s=40.0), point(1, 1, formula_s=20.0), point(2, 2, formula_s=80.0)]
    view = View.of(rows, [done(1, 10.0), done(2, 15.0)])
    assert usual(view, rows[0], "h100").step_s == 20.0


def test_a_faster_pool_never_shortens_what_is_allowed() -> None:
    rows = [point(0, 0), point(1, 0)]
    assert usual(View.of(rows, [done(1, 10.0, pool="h200")]), rows[0], "h100").step_s == 10.0


def test_only_completed_attempts_count() -> None:
    rows = [point(0, 0), point(1, 0)]
    hung = AttemptRow(
        "s", "p1", 1, "t", "j", "h100", AttemptState.JUDGED, 0.0, verdict=Verdict.HANG, measured=Measured(step_s=9e9)
    )
    assert usual(View.of(rows, [hung]), rows[0], "h100") == NOTHING_USUAL
