"""The histogram of scores against counting one by one."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.collect.score_bins import EDGES, ScoreBins


def binned(*blocks: list[float]) -> ScoreBins:
    bins = ScoreBins()
    for block in blocks:
        bins.add(np.array(block, np.float64))
    return bins


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(FINITE | st.floats(-300, 300), max_size=60))
def test_every_score_is_in_the_bin_that_says_so(values: list[float]) -> None:
    histogram = binned(values).histogram()
    assert sum(count for _, _, count in histogram) == len(values)
    for low, high, count in histogram:
        inside = [value for value in values if low <= value and (value < high or value == high == sys.float_info.max)]
        assert len(inside) == count > 0
    assert list(histogram) == sorted(histogram)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), st.integers(0, 40))
def test_blocks_add_up(values: list[float], cut: int) -> None:
    assert binned(values[:cut], values[cut:]).histogram() == binned(values).histogram()


def test_tails_and_centre_are_told_apart_within_the_ratio_of_a_bin() -> None:
    histogram = binned([-235.38, 0.18, 0.0000042]).histogram()
    assert len(histogram) == 3
    for (low, high, _), value in zip(histogram, (-235.38, 0.0000042, 0.18), strict=True):
        near, far = sorted((abs(low), abs(high)))
        assert near <= abs(value) <= far
        assert abs(value) < 1e-3 or far / near == pytest.approx(10**0.2, rel=0.01)


def test_magnitudes_far_below_the_largest_are_one_bin_around_zero() -> None:
    ((low, high, small), (_, _, large)) = binned([1e-9, -1e-9, 0.0, 1e-11, 100.0]).histogram()
    assert (small, large) == (4, 1)
    assert low == -high
    assert 1e-7 < high <= 1e-5


def test_a_file_of_any_range_keeps_a_small_histogram() -> None:
    magnitudes = np.logspace(-300, 300, 20_001)
    bins = ScoreBins()
    bins.add(np.concatenate([-magnitudes, magnitudes]))
    assert len(bins.histogram()) < 100
    assert binned([]).histogram() == ()


def test_edges_are_symmetric_and_ascending() -> None:
    assert list(EDGES) == sorted(set(EDGES)) == [-edge for edge in reversed(EDGES)]
    assert math.isfinite(EDGES[-1])
