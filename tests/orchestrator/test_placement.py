"""Where points start: by prediction, and by what other points have shown of a pool."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given

from orchestrator.ledger import AttemptRow, Measured, PointRow, View
from orchestrator.model import AttemptState, Estimate, Forecast, PointState, Pool, Prediction, Verdict
from orchestrator.placement import Lessons, Placement, fits, forecast_pool, place, sharpened

GIB = 1024**3
LADDER = (Pool("h100", 8, 81_559), Pool("h200", 8, 143_771), Pool("b200", 8, 183_359))


def prediction(gib: float, *, formula_peak: float | None = None) -> Prediction:
    """A point that needs so many GiB on any card."""
    peak = Estimate(gib * GIB, 0.8 * gib * GIB, 1.2 * gib * GIB)
    forecast = Forecast(gpu_bytes=peak, gpu_least_bytes=gib * GIB)
    pools = {pool.name: forecast for pool in LADDER}
    return Prediction("job", {"size": formula_peak or gib}, gib * GIB, pools, pools)


def point(
    index: int, predicted: Prediction | None = None, state: PointState = PointState.READY, **seed: int
) -> PointRow:
    cell = index if not seed else 0
    return PointRow(
        "s", f"p{index}", index, f"point-{index}", {"x": cell, **seed}, seed, (), "", state, predicted=predicted
    )


def attempt(index: int, verdict: Verdict, pool: str = "h100", **more: object) -> AttemptRow:
    row = AttemptRow("s", f"p{index}", 1, "t", f"j{index}", pool, AttemptState.JUDGED, 0.0, verdict=verdict)
    return replace(row, **more)  # type: ignore[arg-type]


def placed(waiting: PointRow, others: list[PointRow], attempts: list[AttemptRow], *, predict: bool = True) -> Placement:
    return place(waiting, LADDER, Lessons.of(View.of([waiting, *others], attempts)), by_prediction=predict)


# ---- prediction ------------------------------------------------------------------------------------------------------


def test_a_point_starts_on_the_first_pool_whose_card_holds_it() -> None:
    assert forecast_pool(prediction(60), LADDER) == Placement("h100")
    larger = forecast_pool(prediction(100), LADDER)
    assert larger.pool == "h200"
    assert larger.why == "predicted to need 100 GiB a card, and h100 has 80"


def test_a_point_that_nothing_holds_starts_on_the_largest_pool_all_the_same() -> None:
    assert forecast_pool(prediction(500), LADDER).pool == "b200"
    assert fits(prediction(500), LADDER[-1]) is False


def test_what_is_unknown_starts_on_the_first_pool() -> None:
    assert forecast_pool(None, LADDER) == Placement("h100")
    assert forecast_pool(Prediction("job"), LADDER) == Placement("h100")
    assert forecast_pool(prediction(500), [Pool("mystery"), *LADDER]) == Placement("mystery")
    assert forecast_pool(prediction(500), []) == Placement(None)


def test_the_sweep_file_may_want_the_first_pool_whatever_is_predicted() -> None:
    assert placed(point(0, prediction(100)), [], [], predict=False) == Placement("h100")


# ---- lessons ---------------------------------------------------------------------------------------------------------


def test_an_out_of_memory_moves_waiting_points_of_the_same_or_a_larger_footprint() -> None:
    died = point(1, prediction(70), PointState.ACTIVE)
    oom = [attempt(1, Verdict.GPU_OOM)]
    assert placed(point(0, prediction(70)), [died], oom).pool == "h200"
    assert placed(point(0, prediction(75)), [died], oom).pool == "h200"
    assert placed(point(0, prediction(69)), [died], oom) == Placement("h100")
    why = placed(point(0, prediction(75)), [died], oom).why
    assert why == "point-1, predicted at 70 GiB to this one's 75, ran out of GPU memory on h100"


def test_replicates_have_one_footprint_even_where_nobody_can_predict_it() -> None:
    died = point(1, None, PointState.ACTIVE, seed=1)
    moved = placed(point(2, None, seed=2), [died], [attempt(1, Verdict.GPU_OOM)])
    assert moved == Placement("h200", "point-1, of the same settings, ran out of GPU memory on h100")
    assert placed(point(3), [died], [attempt(1, Verdict.GPU_OOM)]) == Placement("h100")


def test_two_pools_that_were_too_small_are_both_skipped() -> None:
    died = point(1, prediction(70), PointState.ACTIVE)
    attempts = [attempt(1, Verdict.GPU_OOM), attempt(1, Verdict.GPU_OOM, "h200", n=2)]
    assert placed(point(0, prediction(80)), [died], attempts).pool == "b200"


def test_the_largest_pool_is_where_it_ends() -> None:
    died = point(1, prediction(70), PointState.FAILED)
    attempts = [attempt(1, Verdict.GPU_OOM, pool.name, n=n) for n, pool in enumerate(LADDER, start=1)]
    assert placed(point(0, prediction(80)), [died], attempts).pool == "b200"


def test_a_point_at_least_as_large_that_completed_there_takes_the_lesson_back() -> None:
    died, large = point(1, prediction(60), PointState.ACTIVE), point(2, prediction(75), PointState.SUCCEEDED)
    attempts = [attempt(1, Verdict.GPU_OOM), attempt(2, Verdict.COMPLETED)]
    assert placed(point(0, prediction(70)), [died, large], attempts) == Placement("h100")
    patched = [attempts[0], attempt(2, Verdict.COMPLETED, patch={"a": 1})]
    assert placed(point(0, prediction(70)), [died, large], patched).pool == "h200"


def test_what_was_tried_before_a_rerun_teaches_nothing() -> None:
    died = point(1, prediction(70), PointState.ACTIVE)
    assert placed(point(0, prediction(70)), [died], [attempt(1, Verdict.GPU_OOM, superseded=True)]) == Placement("h100")


sizes = st.one_of(st.none(), st.integers(10, 300))
attempted = st.tuples(sizes, st.sampled_from(list(Verdict)), st.sampled_from([pool.name for pool in LADDER]))


@given(sizes, sizes, st.lists(attempted, max_size=8), st.booleans())
def test_a_larger_point_never_starts_below_a_smaller_one(
    small: int | None, large: int | None, others: list[tuple[int | None, Verdict, str]], predict: bool
) -> None:
    """Where both are known: what is too small for one is too small for whatever is larger."""
    rows = [
        point(n, prediction(size) if size else None, PointState.FAILED) for n, (size, _, _) in enumerate(others, 10)
    ]
    attempts = [attempt(n, verdict, pool) for n, (_, verdict, pool) in enumerate(others, 10)]
    names = [pool.name for pool in LADDER]
    found = [
        placed(point(0, prediction(size) if size else None), rows, attempts, predict=predict) for size in (small, large)
    ]
    assert all(place.pool in names for place in found)
    if small and large and small <= large:
        assert names.index(found[0].pool or "") <= names.index(found[1].pool or "")


# ---- measurements of the same sweep -----------------------------------------------------------------------------------


def test_a_peak_that_was_measured_sharpens_where_the_next_point_starts() -> None:
    """Predicted 70 GiB and measured 91: a point predicted at 65 is then expected to need 85."""
    measured = point(1, prediction(70), PointState.SUCCEEDED)
    done = attempt(1, Verdict.COMPLETED, "h200", measured=Measured(gpu_bytes=91 * GIB))
    waiting = point(0, prediction(65))
    view = View.of([waiting, measured], [done])
    assert forecast_pool(waiting.predicted, LADDER).pool == "h100"
    assert forecast_pool(sharpened(waiting, view, LADDER).predicted, LADDER).pool == "h200"


def test_without_measurements_a_prediction_stays_as_it_is() -> None:
    waiting = point(0, prediction(65))
    assert sharpened(waiting, View.of([waiting], []), LADDER) is waiting
