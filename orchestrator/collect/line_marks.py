"""What a line of a log says of itself: which rank printed it, and when.

Stamps come as month, day and time, without a year: glog and vLLM print none. That sorts right within any run that does
not cross New Year, and is what a reader compares. Zones are ignored; the processes of one job share one.
"""

from __future__ import annotations

import re

NEAR = 200
"""Marks stand at a line's beginning; so many characters of it are looked at."""

_RANK = re.compile(r"\[(?:rank|default)(\d{1,5})\]:|\[(?:[^\[\]]{0,40} )?Rank (\d{1,5})\]")
_CLOCK = r"(\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?"
_STAMPS = re.compile(
    rf"(?<!CANCELLED AT )\b\d{{4}}-(\d\d)-(\d\d)[T _]{_CLOCK}"  # ISO, Python's logging; not Slurm's, whose clock is the host's
    rf"|\b(?:INFO|WARNING|ERROR) (\d\d)-(\d\d) {_CLOCK}"  # vLLM
    rf"|\b[IWEF](\d{{1,2}})(\d\d) {_CLOCK}"  # glog, whose months have one digit or two
)


def rank_of(line: str) -> int | None:
    """The rank in a prefix: `[rank3]: ...`, `[PG 1 Rank 3] ...`, torchrun's `[default3]:`."""
    found = _RANK.search(line[:NEAR])
    return int(found[1] or found[2]) if found else None


def time_of(line: str) -> str | None:
    """`MM-DD hh:mm:ss.ffffff` of the first stamp at a line's beginning; such texts sort by time."""
    found = _STAMPS.search(line[:NEAR])
    if found is None:
        return None
    month, day, clock, fraction = (part for part in _quarters(found.groups()) if part is not None)
    return f"{int(month):02}-{day} {clock}.{(fraction or '').ljust(6, '0')[:6]}"


def _quarters(groups: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """The four groups of the alternative that matched, the fraction as '' where there is none."""
    for start in range(0, len(groups), 4):
        if groups[start] is not None:
            return (*groups[start : start + 3], groups[start + 3] or "")
    raise AssertionError("one alternative has matched")
