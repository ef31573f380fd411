"""Spearman's correlation of score files, against the textbook's formula and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orchestrator.search.fidelity import NotComparable, Scores, correlation, fidelity, ranks

few = arrays(np.float64, st.integers(3, 12), elements=st.integers(-5, 5).map(float))


def scores(values: list[float] | np.ndarray, tokens: list[int] | None = None) -> Scores:
    row = np.asarray([values], dtype=np.float32)
    return Scores(row, np.isfinite(row), np.asarray([tokens or range(row.size)]))


@given(few)
def test_ranks_are_places_in_order_and_equal_values_share_theirs(values: np.ndarray) -> None:
    by_hand = [
        1 + sum(other < value for other in values) + (sum(other == value for other in values) - 1) / 2
        for value in values
    ]
    assert ranks(values).tolist() == by_hand


@given(st.permutations(range(8)))
def test_without_equal_values_it_is_the_textbooks_formula(order: list[int]) -> None:
    differences = sum((a - b) ** 2 for a, b in enumerate(order))
    expected = 1 - 6 * differences / (8 * 63)
    assert correlation(scores(list(map(float, order))), scores(list(map(float, range(8))))) == pytest.approx(expected)


@given(few.filter(lambda values: np.ptp(values) > 0))
def test_only_the_order_counts(values: np.ndarray) -> None:
    assert correlation(scores(values), scores(np.exp(values))) == pytest.approx(1.0)
    assert correlation(scores(values), scores(-values)) == pytest.approx(-1.0)


def test_positions_that_only_one_file_scores_are_left_out() -> None:
    one, other = scores([1.0, 2.0, 3.0, float("nan")]), scores([float("nan"), 5.0, 9.0, -4.0])
    assert correlation(one, other) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (scores([1.0, 2.0], [7, 8]), scores([1.0, 2.0], [7, 9]), "responses differ"),
        (scores([1.0, 2.0]), scores([1.0, 2.0, 3.0]), "responses differ"),
        (scores([1.0, 1.0]), scores([1.0, 2.0]), "fewer than two different"),
    ],
)
def test_what_cannot_be_compared_says_why(one: Scores, other: Scores, message: str) -> None:
    with pytest.raises(NotComparable, match=message):
        correlation(one, other)


def test_files_are_read_without_pickle(tmp_path: Path) -> None:
    mask = np.array([[True, True, True, False]])
    values = np.array([[0.5, -1.0, 2.0, np.nan]], np.float32)
    for name, sign in (("a", 1), ("b", -1)):
        np.savez(tmp_path / f"{name}.npz", scores=sign * values, mask=mask, response_ids=np.array([[1, 2, 3, sign]]))
    assert fidelity(tmp_path / "a.npz", tmp_path / "b.npz") == pytest.approx(-1.0)
    np.savez(tmp_path / "c.npz", scores=np.array([object()], dtype=object))
    with pytest.raises(NotComparable, match=r"c\.npz cannot be read"):
        fidelity(tmp_path / "a.npz", tmp_path / "c.npz")
