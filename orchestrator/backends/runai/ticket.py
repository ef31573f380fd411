"""Two files of this backend in the attempt folder: what was asked of Run:ai, written before it is asked, and the phases seen.

Without a ticket no workload was ever asked for. With one, a workload whose id was never written down can be found again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import Unobservable
from trainer_ext.records import write_atomic

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
        write_atomic(attempt_dir / TICKET, json.dumps(asdict(self)))


def read_ticket(attempt_dir: Path) -> Ticket | None:
    """None where nothing was ever asked of Run:ai.

    Raises:
        Unobservable: the file is there and cannot be read.
    """
    try:
        return Ticket(**json.loads((attempt_dir / TICKET).read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise Unobservable(f"cannot read {attempt_dir / TICKET}: {error}") from error


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
