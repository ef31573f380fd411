from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import units


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (90, 90),
        (1.5, 1.5),
        ("4h", 14400),
        ("90m", 5400),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1.5 h", 5400),
        ("45s", 45),
        ("04:00:00", 14400),
        ("1-00:30:05", 88205),
        ("20min", 1200),
    ],
)
def test_durations(written: str | float, seconds: float) -> None:
    assert units.seconds(written) == seconds


@pytest.mark.parametrize("written", ["", "4x", "h4", "4h!", "-4h", 0, -1, True, None, [4], float("inf"), float("nan")])
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"duration|above zero|finite"):
        units.seconds(written)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "size"),
    [(5, 5), ("900GiB", 900 * 2**30), ("900 GB", 900 * 10**9), ("1.5KiB", 1536), ("7b", 7), ("2tib", 2 * 2**40)],
)
def test_sizes(written: str | float, size: int) -> None:
    assert units.size_bytes(written) == size


@pytest.mark.parametrize("written", ["", "900Gi", "GiB", "-1GiB", 0, True, None, "1e3GiB"])
def test_what_is_no_size_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"size|above zero"):
        units.size_bytes(written)  # type: ignore[arg-type]


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_both_ways_to_write_a_duration_agree(days: int, hours: int, minutes: int, seconds: int) -> None:
    assert units.seconds(f"{days}-{hours:02}:{minutes:02}:{seconds:02}") == units.seconds(
        f"{days}d{hours}h{minutes}m{seconds}s"
    )
