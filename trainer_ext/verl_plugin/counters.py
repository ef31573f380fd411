"""Debug counters of a rank. They share nothing with the timings: each is read, and thereby reset, without the other."""

from __future__ import annotations

from collections import Counter

SELECTED_TOKENS = "capture_selected_tokens"
"""Response tokens that a capture selected."""


class DebugCounters:
    """Counts by name since the last reading."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str, count: int) -> None:
        self._counts[name] += count

    def read(self) -> dict[str, int]:
        """Counts since the last reading; resets the counters and nothing else."""
        counts, self._counts = dict(self._counts), Counter()
        return counts
