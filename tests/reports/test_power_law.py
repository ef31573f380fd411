"""Exponents and their errors, against laws that are known and against numpy's own fit."""

from __future__ import annotations

import numpy as np
import pytest

from reports.power_law import fit_power_law


@pytest.mark.parametrize("exponent", [3.0, -2.25, 0.0])
def test_an_exact_law_is_found_without_error(exponent: float) -> None:
    x = [64.0, 128.0, 256.0, 512.0]
    fit = fit_power_law(x, [0.7 * value**exponent for value in x])
    assert fit is not None
    assert fit.exponent == pytest.approx(exponent)
    assert fit.coefficient == pytest.approx(0.7)
    assert fit.error == pytest.approx(0.0, abs=1e-9)
    assert fit.at(100.0) == pytest.approx(0.7 * 100.0**exponent)


def test_the_error_is_that_of_least_squares() -> None:
    x, y = [512.0, 128.0, 64.0, 32.0], [0.29, 6.6, 31.1, 990.0]
    (slope, _), covariance = np.polyfit(np.log(x), np.log(y), 1, cov="unscaled")
    rest = np.log(y) - np.polyval(np.polyfit(np.log(x), np.log(y), 1), np.log(x))
    fit = fit_power_law(x, y)
    assert fit is not None
    assert fit.exponent == pytest.approx(slope)
    assert fit.error == pytest.approx(np.sqrt(covariance[0, 0] * (rest @ rest) / (len(x) - 2)))


def test_two_points_have_an_exponent_and_no_error() -> None:
    fit = fit_power_law([64.0, 32.0], [81.0, 990.0])
    assert fit is not None
    assert (round(fit.exponent, 2), fit.error, fit.n) == (-3.61, None, 2)


@pytest.mark.parametrize(
    ("x", "y"),
    [([], []), ([64.0], [1.0]), ([64.0, 64.0], [1.0, 2.0]), ([64.0, 32.0], [1.0, 0.0]), ([64.0, 32.0], [1.0, np.nan])],
)
def test_there_is_no_law_through_one_size_or_figures_without_a_logarithm(x: list[float], y: list[float]) -> None:
    assert fit_power_law(x, y) is None


def test_unequal_lengths_are_an_error() -> None:
    with pytest.raises(ValueError):
        fit_power_law([1.0, 2.0], [1.0])
