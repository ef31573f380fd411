from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.numbers import count, duration, gib, milliseconds, percent, plural, seconds, stamp, statistics


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (0.29, "0.29"),
        (0.0551, "0.055"),
        (1.2, "1.2"),
        (3, "3.0"),
        (34.52, "34.5"),
        (146.2, "146"),
        (1012.4, "1,012"),
    ],
)
def test_seconds(value: float, written: str) -> None:
    assert seconds(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (230.518, "230.518"),
        (713.76849, "713.768"),
        (1012.0, "1,012"),
        (34.5, "34.5"),
        (0.0095, "0.0095"),
        (0.000512, "0.00051"),
        (math.inf, "inf"),
    ],
)
def test_milliseconds(value: float, written: str) -> None:
    assert milliseconds(value) == written


def test_nouns_are_counted() -> None:
    assert [plural(number, "point") for number in (0, 1, 1_200)] == ["0 points", "1 point", "1,200 points"]


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([0.139, 0.088, 0.18, 0.207], ["0.139", "0.088", "0.180", "0.207"]),
        ([4.2e-6, -5e-6, -1.4e-5], ["0.0000042", "-0.0000050", "-0.0000140"]),
        ([-96.94, 36.661], ["-96.94", "36.66"]),
        ([None, 0.0, 2.0], ["", "0.00", "2.00"]),
        ([math.nan, math.inf, 1.0], ["NaN", "inf", "1.00"]),
        ([1e-12, 5.0], ["1.00e-12", "5.00e+00"]),
    ],
)
def test_statistics_of_a_column_share_their_decimals(values: list[float | None], written: list[str]) -> None:
    assert statistics(values) == written


@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False)))
def test_statistics_keep_two_digits_of_every_figure(values: list[float]) -> None:
    for value, written in zip(values, statistics(values), strict=True):
        assert float(written.replace(",", "")) == pytest.approx(value, rel=0.06, abs=0.0)


def test_counts_and_sizes() -> None:
    assert count(6_129_414) == "6,129,414"
    assert count(math.nan) == "NaN"
    assert gib(143_771 * 1024**2) == "140.4"
    assert gib(0.5 * 1024**3) == "0.50"
    assert gib(-12.34 * 1024**3) == "-12.3"
    assert percent(1.2, 146) == "0.8%"
    assert percent(1, 0) == ""


def test_times_do_not_depend_on_the_machine() -> None:
    assert stamp(1_771_754_400.0) == "2026-02-22 10:00:00 UTC"
    assert [duration(value) for value in (12, 200, 7_500)] == ["12 s", "3 min 20 s", "2 h 05 min"]
