"""Measurements correct predictions: the same configuration most, the nearest one by its ratio, a foreign one not at all."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from orchestrator.ledger import Measured, Measurement
from orchestrator.model import Estimate, Forecast, Prediction
from orchestrator.preflight.calibrate import calibrated, distance

GIB = 1024**3


def formula(
    gib: float, *, factor: int = 64, scope: str = "per_prompt", kind: str = "job", steps: int = 2
) -> Prediction:
    """A point that the formula puts at so many GiB on either pool, at half of that on the host, and at as many seconds."""

    def estimate(value: float) -> Estimate:
        return Estimate(value, value / 2, value * 2)

    forecast = Forecast(estimate(gib * GIB), 0.9 * gib * GIB, estimate(gib * GIB / 2), estimate(gib), estimate(2 * gib))
    pools = {"h100": forecast, "h200": forecast}
    features = {"factor": factor, "scope": scope, "steps": steps}
    return Prediction(kind, features, gib * GIB, pools, pools)


def seen(predicted: Prediction, gib: float, pool: str = "h100", seconds: float | None = None) -> Measurement:
    measured = Measured(steps=2, step_s=gib, gpu_bytes=int(gib * GIB), host_bytes=int(gib * GIB / 2))
    return Measurement(predicted, pool, seconds, measured)


def gpu(prediction: Prediction, *measurements: Measurement, pool: str = "h100") -> Estimate:
    found = calibrated(prediction, ["h100", "h200"], measurements).on[pool].gpu_bytes
    assert found is not None
    return found


def test_without_measurements_the_formula_stands() -> None:
    assert gpu(formula(60)).basis == "shapes"
    assert calibrated(formula(60), ["h100"], []).on["h100"] == formula(60).formula["h100"]


def test_the_same_configuration_gives_its_own_figure_and_a_narrow_interval() -> None:
    found = gpu(formula(60), seen(formula(60), 72))
    assert (found.value / GIB, found.basis) == (pytest.approx(72), "measured")
    assert (found.low / GIB, found.high / GIB) == (pytest.approx(72 / 1.1), pytest.approx(72 * 1.1))


def test_several_give_their_median_and_their_range() -> None:
    found = gpu(formula(60), *(seen(formula(60), gib) for gib in (70, 71, 80)))
    assert found.value / GIB == pytest.approx(71)
    assert (found.low / GIB, found.high / GIB) == (pytest.approx(70 / 1.05), pytest.approx(80 * 1.05))


def test_the_nearest_configuration_scales_by_what_the_formula_says_of_both() -> None:
    near = seen(formula(50, factor=128), 60)
    far = seen(formula(30, factor=128, scope="all_selected"), 90)
    found = gpu(formula(70, factor=64), near, far)
    assert (found.value / GIB, found.basis) == (pytest.approx(70 * 60 / 50), "scaled")
    assert found.high / found.value > 1.1, "wider than the figure itself would be"


def test_the_farther_the_nearest_one_is_the_wider_the_interval() -> None:
    widths = [
        (found := gpu(formula(60, factor=64), seen(formula(60, factor=factor), 60))).high / found.low
        for factor in (64, 80, 128, 512)
    ]
    assert widths == sorted(widths)


def test_another_kind_of_job_and_one_too_far_away_say_nothing() -> None:
    assert gpu(formula(60), seen(formula(60, kind="other"), 90)).basis == "shapes"
    assert gpu(formula(60, factor=2), seen(formula(60, factor=512), 90)).basis == "shapes"


def test_the_same_pool_goes_before_another_one() -> None:
    both = [seen(formula(60), 72, "h200"), seen(formula(60), 66, "h100")]
    assert gpu(formula(60), *both).value / GIB == pytest.approx(66)
    assert gpu(formula(60), *both, pool="h200").value / GIB == pytest.approx(72)


def test_what_a_card_must_have_moves_with_the_peak_and_never_above_one_that_was_seen_to_do() -> None:
    least = calibrated(formula(60), ["h100"], [seen(formula(50, factor=128), 100)]).on["h100"].gpu_least_bytes
    assert least is not None
    assert least / GIB == pytest.approx(0.9 * 60 * 2)
    own = calibrated(formula(60), ["h100"], [seen(formula(60), 61)]).on["h100"].gpu_least_bytes
    assert own is not None
    assert own <= 61 * GIB


def test_the_whole_time_is_the_steps_and_what_lay_beside_them() -> None:
    """Two steps of 30 s in a job of 100 s leave 40 s beside them, however many steps the next point takes."""
    found = calibrated(formula(60, steps=10), ["h100"], [seen(formula(60), 30, seconds=100)]).on["h100"].seconds
    assert found is not None
    assert found.value == pytest.approx(40 + 10 * 30)


def test_a_job_of_unknown_shapes_is_predicted_by_its_own_kind() -> None:
    unknown = Prediction("mine")
    found = calibrated(unknown, ["h100"], [seen(Prediction("mine"), 20, seconds=90)]).on["h100"]
    assert found.gpu_bytes is not None
    assert found.gpu_bytes.value / GIB == pytest.approx(20)
    assert found.gpu_bytes.high / found.gpu_bytes.low > 2
    assert found.seconds is not None


@given(st.floats(1, 200), st.lists(st.tuples(st.floats(1, 200), st.floats(1, 200), st.integers(1, 512)), max_size=5))
def test_the_value_lies_in_its_interval_whatever_was_measured(
    gib: float, others: list[tuple[float, float, int]]
) -> None:
    found = gpu(formula(gib), *(seen(formula(size, factor=factor), peak) for size, peak, factor in others))
    assert 0 < found.low <= found.value <= found.high


numbers = st.dictionaries(st.sampled_from("abc"), st.one_of(st.integers(-5, 500), st.text(max_size=2), st.booleans()))


@given(numbers, numbers)
def test_the_distance_is_the_same_both_ways_and_steps_weigh_nothing(a: dict[str, object], b: dict[str, object]) -> None:
    assert distance(a, a) == 0  # type: ignore[arg-type]
    assert distance(a, b) == pytest.approx(distance(b, a))  # type: ignore[arg-type]
    assert distance({**a, "steps": 1}, {**a, "steps": 9}) == 0  # type: ignore[dict-item]
