"""How many steps a job means to train, as far as its log says: needed where no attempt.json says it.

Three places tell, the surest first: verl's own announcement, the progress bar, the printed or overridden configuration.
"""

from __future__ import annotations

import re

_SOURCES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("otal training steps", re.compile(r"\b[Tt]otal training steps: (\d{1,9})\b")),
    ("Training Progress", re.compile(r"Training Progress: +\d+%\|.*?\| *\d+/(\d{1,9}) \[")),
    ("total_training_steps", re.compile(r"\btotal_training_steps['\"]?\s*[:=]\s*(\d{1,9})\b(?!\.)")),
)


class TotalSteps:
    """Fed with lines; `value` is what the surest place said first."""

    def __init__(self) -> None:
        self.value: int | None = None
        self._sources = _SOURCES

    @property
    def literals(self) -> tuple[bytes, ...]:
        """Lines without any of these need not be looked at: nothing surer can come in them."""
        return tuple(literal.encode() for literal, _ in self._sources)

    def look(self, line: str) -> None:
        for place, (literal, regex) in enumerate(self._sources):
            if literal in line and (match := regex.search(line)) and int(match[1]) > 0:
                self.value = int(match[1])
                self._sources = self._sources[:place]
                return
