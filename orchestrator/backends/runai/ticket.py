"""Two files of this backend in the attempt folder: the ticket, what was asked of Run:ai, and the phases that were seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.backends import tickets

TICKET = "runai.json"
PHASES = "runai-phases.jsonl"
"""A line each time that Run:ai's words about the workload changed."""


@dataclass(frozen=True)
class Ticket:
    name: str
    """Of the workload."""
    kind: str
    time: float
    """Seconds since the epoch, before Run:ai was asked."""
    project: str = ""
    """Its id; empty: an older version did not say."""
    cluster: str = ""

    def write(self, attempt_dir: Path) -> None:
        tickets.write(attempt_dir / TICKET, self)


def read_ticket(attempt_dir: Path) -> Ticket | None:
    """None where nothing was ever asked of Run:ai.

    Raises:
        Unobservable: the file is there and cannot be read.
    """
    return tickets.read(attempt_dir / TICKET, Ticket)


def same_place(attempt_dir: Path, project: str, cluster: str) -> bool:
    """Whether the attempt's workload was asked for in this project; settings may have changed since.

    Raises:
        Unobservable: that cannot be read.
    """
    asked = read_ticket(attempt_dir)
    return asked is None or not asked.project or (asked.project, asked.cluster) == (project, cluster)


def note_phase(attempt_dir: Path, time: float, words: Mapping[str, Any]) -> None:
    """Append to the phases that were seen; a folder that cannot be written loses a line and nothing else."""
    with suppress(OSError), (attempt_dir / PHASES).open("a") as file:
        file.write(json.dumps({"time": time, **words}) + "\n")
