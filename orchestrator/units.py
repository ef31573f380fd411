"""Durations and sizes as people write them.

Durations are seconds, `90m`, `4h`, `1h30m`, `2d`, or Slurm's `HH:MM:SS` and `D-HH:MM:SS`. Sizes are bytes, `900GiB`
(powers of 1024) or `900GB` (powers of 1000).
"""

from __future__ import annotations

import math
import re

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:min|[smhd])\s*)+")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(min|[smhd])")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)")

_BYTES = {"": 1, "b": 1}
_BYTES |= {f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)}
_BYTES |= {f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")


def seconds(written: str | float) -> float:
    """A duration in seconds.

    Raises:
        ValueError: not a duration, or not above zero, or not finite.
    """
    if isinstance(written, bool) or not isinstance(written, str | int | float):
        raise ValueError("must be a duration such as 4h, 90m or 04:00:00")
    total = _seconds(written.strip().lower()) if isinstance(written, str) else float(written)
    if not math.isfinite(total):
        raise ValueError("must be finite; leave it out where there is no limit")
    if total <= 0:
        raise ValueError("must be above zero")
    return total


def _seconds(text: str) -> float:
    if match := _CLOCK.fullmatch(text):
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)
    if _DURATION.fullmatch(text):
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    raise ValueError(f"'{text}' is not a duration; write 4h, 90m, 1h30m or 04:00:00")


def size_bytes(written: str | float) -> int:
    """A size in bytes.

    Raises:
        ValueError: not a size, or not above zero.
    """
    if isinstance(written, bool) or not isinstance(written, str | int | float):
        raise ValueError("must be a size such as 900GiB")
    match = _SIZE.fullmatch(str(written).strip())
    if match is None or match[2].lower() not in _BYTES:
        raise ValueError(f"'{written}' is not a size; write 900GiB, 512MiB or a number of bytes")
    total = int(float(match[1]) * _BYTES[match[2].lower()])
    if total <= 0:
        raise ValueError("must be above zero")
    return total
