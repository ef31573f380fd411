"""What rank 0 tells the process that started it, as lines of a file: both may end at any moment."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from trainer_ext.bench.history import append_line
from trainer_ext.bench.step.report import StepRow


@dataclass(frozen=True, kw_only=True)
class Event:
    """One of these."""

    ready: float | None = None
    """Seconds after the start; the model is there and the steps begin."""
    row: StepRow | None = None
    failure: str | None = None


def append_event(path: Path, event: Event) -> None:
    append_line(path, asdict(event))


def read_events(path: Path) -> list[Event]:
    """All whole lines; none where there is no file yet."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]  # what follows the last newline is a line being written
    values = [json.loads(line) for line in lines]
    return [Event(**{**value, "row": StepRow(**value["row"]) if value["row"] else None}) for value in values]
