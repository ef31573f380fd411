"""How figures are written: thousands separators, and as many digits as say something.

Statistics of one column share their decimals, chosen so that the smallest of them still shows two significant digits:
0.139 stands over 0.088, and 0.0000042 over -0.0000140. Seconds are rounded one by one: 0.29, 8.5, 1,012.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

GIB = 1024**3
_MOST_DECIMALS = 8
_NONFINITE = {"nan": "NaN", "inf": "inf", "-inf": "-inf"}


def count(value: float) -> str:
    """6129414 -> 6,129,414; figures that are no whole numbers keep two decimals."""
    if not math.isfinite(value):
        return _NONFINITE[str(value)]
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def seconds(value: float) -> str:
    """146, 34.5, 0.29, 0.0012: whole above 100, else one decimal, else two significant digits."""
    if not math.isfinite(value):
        return _NONFINITE[str(value)]
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    if abs(value) >= 0.995:
        return f"{value:.1f}"
    return f"{value:.{_decimals(value)}f}" if value else "0"


def milliseconds(value: float) -> str:
    """Seconds to the millisecond, two significant digits at least, without zeros that say nothing: 230.518, 34.5, 0.0095."""
    if not math.isfinite(value) or not value:
        return seconds(value)
    text = f"{value:,.{max(3, _decimals(value))}f}"
    return text.rstrip("0").rstrip(".")


def gib(size: float) -> str:
    """Bytes as GiB with one decimal; two significant digits below one."""
    value = size / GIB
    return f"{value:,.1f}" if abs(value) >= 0.95 or not value else f"{value:.{_decimals(value)}f}"


def percent(part: float, whole: float) -> str:
    """Share with one decimal; empty where the whole is not positive."""
    return f"{100 * part / whole:.1f}%" if whole > 0 and math.isfinite(part / whole) else ""


def statistics(values: Sequence[float | None], least_decimals: int = 2) -> list[str]:
    """Figures of one column with common decimals; None becomes an empty string.

    Scientific notation for the whole column where the smallest figure would need more than eight decimals.
    """
    magnitudes = [abs(value) for value in values if value is not None and value and math.isfinite(value)]
    decimals = max(least_decimals, _decimals(min(magnitudes))) if magnitudes else least_decimals
    pattern = ",.2e" if decimals > _MOST_DECIMALS else f",.{decimals}f"
    zero = "0" if pattern.endswith("e") else format(0.0, pattern)
    return [
        "" if value is None else _NONFINITE.get(str(value), format(value, pattern) if value else zero)
        for value in values
    ]


def duration(value: float) -> str:
    """Seconds as 2 h 05 min, 3 min 20 s or 12 s."""
    whole = round(value)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def plural(number: int, noun: str) -> str:
    """1 point, 1,200 points."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def stamp(time: float) -> str:
    """2026-02-22 10:03:12 UTC, the same on every machine."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def day(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")


def _decimals(value: float) -> int:
    """Decimals that show two significant digits of a figure below ten."""
    return max(0, 1 - math.floor(math.log10(abs(value))))
