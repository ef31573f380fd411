"""Intervals and tests of a few differences, against answers worked out by hand or by trying everything."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist, fmean

import numpy as np
import pytest

from reports.resampling import (
    best_coverage,
    bootstrap_interval,
    geometric_mean,
    holm,
    sign_flip_p,
)

SKEWED = [0.1, 0.2, 0.4, 1.9]


def bca_of_every_resample(values: list[float], confidence: float) -> tuple[float, float]:
    """The interval from all n^n samples with replacement; acceleration by leaving one out, as the definition has it."""
    n, mean = len(values), fmean(values)
    means = np.array(sorted(fmean(sample) for sample in itertools.product(values, repeat=n)))
    below = ((means < mean - 1e-12).mean() + (means <= mean + 1e-12).mean()) / 2
    bias = NormalDist().inv_cdf(float(below))
    left_out = [fmean(values[:place] + values[place + 1 :]) for place in range(n)]
    gaps = [fmean(left_out) - one for one in left_out]
    acceleration = sum(gap**3 for gap in gaps) / (6 * sum(gap**2 for gap in gaps) ** 1.5)
    ends = []
    for level in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + NormalDist().inv_cdf(level)
        ends.append(float(np.quantile(means, NormalDist().cdf(bias + z / (1 - acceleration * z)))))
    return ends[0], ends[1]


@pytest.mark.parametrize("values", [SKEWED, [1.0, 2.0, 3.0, 4.0, 5.0], [-3.0, 0.5, 0.6, 0.7]])
def test_an_interval_is_the_one_of_all_resamples_but_for_chance(values: list[float]) -> None:
    interval = bootstrap_interval(values)
    low, high = bca_of_every_resample(values, 0.95)
    tolerance = 0.03 * (max(values) - min(values))
    assert interval is not None
    assert interval.mean == pytest.approx(fmean(values))
    assert interval.low == pytest.approx(low, abs=tolerance)
    assert interval.high == pytest.approx(high, abs=tolerance)
    assert interval.n == len(values)


def test_a_skewed_sample_has_its_interval_shifted_to_the_long_side() -> None:
    interval = bootstrap_interval(SKEWED)
    assert interval is not None
    assert interval.high - interval.mean > interval.mean - interval.low


@pytest.mark.parametrize(("n", "least", "most"), [(20, 0.90, 0.98), (3, 0.60, 0.80)])
def test_coverage_is_what_it_says_for_many_and_no_more_than_can_be_for_few(n: int, least: float, most: float) -> None:
    generator = np.random.default_rng(7)
    held = 0
    for _ in range(200):
        interval = bootstrap_interval(generator.normal(1.0, 2.0, size=n).tolist())
        assert interval is not None
        held += interval.low <= 1.0 <= interval.high
    assert least <= held / 200 <= most


def test_no_interval_of_a_symmetric_sample_can_cover_more_than_its_range() -> None:
    assert best_coverage(3) == 0.75
    assert best_coverage(5) < 0.95 < best_coverage(6)


def test_an_interval_moves_with_its_values_and_is_the_same_every_time() -> None:
    once, again = bootstrap_interval(SKEWED), bootstrap_interval([value + 10 for value in SKEWED])
    assert once is not None
    assert again is not None
    assert (again.low - once.low, again.high - once.high) == pytest.approx((10, 10))
    assert bootstrap_interval(SKEWED) == once


def test_one_value_has_no_interval_and_equal_ones_have_no_width() -> None:
    assert bootstrap_interval([1.0]) is None
    assert sign_flip_p([1.0]) is None
    interval = bootstrap_interval([0.3, 0.3, 0.3])
    assert interval is not None
    assert interval.low == interval.mean == interval.high


def test_sign_flips_are_counted_by_hand() -> None:
    assert sign_flip_p([1.0, 2.0, 3.0]) == 2 / 8  # all signs alike, either way
    assert sign_flip_p([3.0, -1.0]) == 1.0  # |2| is reached by every flip: 3-1, 3+1, -3-1, -3+1
    assert sign_flip_p([5.0, 4.0, -1.0]) == 4 / 8  # |8|, and |10| with the last one turned, either way


def test_drawn_flips_come_near_to_all_flips() -> None:
    values = np.random.default_rng(3).normal(0.35, 1.0, size=16)
    signs = 1.0 - 2.0 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1)
    exact = float((np.abs(signs @ values) >= abs(values.sum()) - 1e-9).mean())
    drawn = sign_flip_p(values.tolist())
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 10_000))


def test_holm_is_worked_out_by_hand() -> None:
    # 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1, which may not be below the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_of_one_test_changes_nothing() -> None:
    assert holm([0.25]) == [0.25]


def test_the_mean_of_ratios_is_geometric() -> None:
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
