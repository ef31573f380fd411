"""Reads `metrics.jsonl`, verl's file logger: `{"step": n, "data": {...}}` a line, while the job still writes it.

verl's JSON writer turns NaN and infinities into null, so null is read as NaN: a gradient norm that is null diverged.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

MAX_READ = 64 << 20
"""Bytes read at once; more of a file comes with the next call."""


@dataclass(frozen=True)
class MetricsRow:
    step: int
    data: dict[str, float]


def read_new(path: Path, offset: int = 0) -> tuple[list[MetricsRow], int]:
    """The rows that were written since `offset`, and the offset to go on from.

    Only whole lines are read; a line without an end waits for its rest. A file that was rewritten since (it is shorter
    than `offset`, or no line ends there) is read from its beginning. A file that does not exist has no rows.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(offset - 1, 0))
            if offset > size or (offset and file.read(1) != b"\n"):
                offset = 0
                file.seek(0)
            data = file.read(MAX_READ)
    except FileNotFoundError:
        return [], 0
    whole = data[: data.rfind(b"\n") + 1]
    return parse_rows(whole), offset + len(whole)


class StepRows(NamedTuple):
    """A whole file by step, ascending."""

    metrics: dict[int, dict[str, float]]
    """step -> metric -> value; of one step's rows the later wins, metric by metric."""
    lines: dict[int, int]
    """step -> the last line, from 1, that has a row of it."""


def read_all(path: Path) -> StepRows:
    """Everything that the whole lines of a file say; of one that does not exist, nothing."""
    metrics: dict[int, dict[str, float]] = {}
    lines: dict[int, int] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                for row in parse_rows(line) if line.endswith(b"\n") else ():
                    metrics.setdefault(row.step, {}).update(row.data)
                    lines[row.step] = number
    except FileNotFoundError:
        return StepRows({}, {})
    return StepRows(dict(sorted(metrics.items())), dict(sorted(lines.items())))


def parse_rows(text: bytes) -> list[MetricsRow]:
    """The rows of whole lines; lines that are no rows are left out, for a crash may leave half a line in the middle."""
    return list(_rows(text.splitlines()))


def _rows(lines: Iterable[bytes]) -> Iterable[MetricsRow]:
    for line in lines:
        try:
            row = json.loads(line)
            step, data = row["step"], row["data"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if isinstance(step, int) and not isinstance(step, bool) and isinstance(data, dict):
            yield MetricsRow(step, {sys.intern(name): _number(value) for name, value in data.items() if _counts(value)})


def _counts(value: object) -> bool:
    return value is None or isinstance(value, (int, float))


def _number(value: float | None) -> float:
    try:
        return math.nan if value is None else float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf
