"""What is read from bins, against the scores that were binned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.collect.score_bins import ScoreBins
from reports.histogram import lower_tail, quantile, upper_tail


def binned(values: list[float]) -> tuple[tuple[float, float, int], ...]:
    bins = ScoreBins()
    bins.add(np.array(values, np.float64))
    return bins.histogram()


@given(st.lists(st.floats(-300, 300), min_size=1, max_size=60), st.floats(0, 1))
def test_a_quantile_is_in_the_bin_of_the_exact_one(values: list[float], share: float) -> None:
    histogram = binned(values)
    found = quantile(histogram, share)
    exact = sorted(values)[max(0, int(np.ceil(share * len(values))) - 1)]
    assert found is not None
    assert any(low <= exact <= high and low <= found <= high for low, high, _ in histogram)


def test_quantiles_of_many_scores_are_near() -> None:
    values = np.random.default_rng(0).standard_normal(20_000)
    histogram = binned(list(values))
    for share in (0.01, 0.25, 0.75, 0.99):
        assert quantile(histogram, share) == pytest.approx(np.quantile(values, share), rel=0.1)
    assert quantile((), 0.5) is None


@given(st.lists(st.floats(-300, 300), min_size=1, max_size=60))
def test_tails_are_the_shares_beyond(values: list[float]) -> None:
    histogram, scores = binned(values), np.array(values)
    for x, share in upper_tail(histogram):
        assert share == pytest.approx((scores >= x).mean())
    for x, share in lower_tail(histogram):
        assert share == pytest.approx((scores < -x).mean(), abs=1 / len(values)), (
            "a score on the edge is in the next bin"
        )
    shares = [share for _, share in upper_tail(histogram)]
    assert shares == sorted(shares, reverse=True)
