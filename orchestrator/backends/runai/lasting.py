"""For how long a workload has been seen as it is, which is what a conclusion waits for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class _Seen:
    key: object
    at: float
    same_for_s: float = 0.0


class Lasting:
    """Remembers what was seen of each workload last.

    Time counts as far as somebody looked: after a laptop slept, a clock was set or a control plane was away for an hour, the
    first look proves no more than any other.

    Args:
        most_s: the most that counts between two looks.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._seen: dict[str, _Seen] = {}

    def seconds(self, handle: str, key: object, now: float) -> float:
        """How long the workload has been `key`, which it is now."""
        seen = self._seen.get(handle)
        if seen is None or seen.key != key:
            seen = self._seen[handle] = _Seen(key, now)
        seen.same_for_s += min(max(now - seen.at, 0.0), self._most_s)
        seen.at = now
        return seen.same_for_s
