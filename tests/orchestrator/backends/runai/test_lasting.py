"""Waiting counts by looks, and a clock that jumps proves nothing."""

from __future__ import annotations

from orchestrator.backends.runai.lasting import Lasting


def test_what_stays_the_same_grows_old_and_what_changes_is_young_again() -> None:
    lasting = Lasting(most_s=60)
    assert [lasting.seconds("a", "x", now) for now in (100, 110, 130)] == [0, 10, 30]
    assert lasting.seconds("a", "y", 140) == 0
    assert lasting.seconds("a", "x", 150) == 0
    assert lasting.seconds("b", "x", 150) == 0


def test_no_more_counts_between_two_looks_than_somebody_may_have_looked_away() -> None:
    lasting = Lasting(most_s=60)
    lasting.seconds("a", "x", 100)
    assert lasting.seconds("a", "x", 100 + 7200) == 60
    assert lasting.seconds("a", "x", 100 + 7210) == 70


def test_a_clock_that_is_set_back_takes_nothing_away() -> None:
    lasting = Lasting(most_s=60)
    lasting.seconds("a", "x", 100)
    assert [lasting.seconds("a", "x", now) for now in (110, 50, 55)] == [10, 10, 15]
