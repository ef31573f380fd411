"""`python -m reports.gallery`: draw every report of the gallery again, from the snapshots that are kept beside them.

`python -m reports.gallery SNAPSHOT...` first takes in new ones, as `python -m orchestrator report SWEEP --snapshot FILE` writes
them: without the names of nodes, each under the name of its sweep.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from reports.files import write_files
from reports.snapshot import PointSnapshot, SweepSnapshot

GALLERY = Path(__file__).parent
NODE = "node"
"""In place of a machine's name."""


def snapshots() -> dict[str, SweepSnapshot]:
    """Name of a report -> the sweep that it shows.

    Raises:
        ValueError: a file that is no snapshot.
    """
    return {path.stem: SweepSnapshot.from_json(path.read_bytes()) for path in sorted(GALLERY.glob("*.json"))}


def anonymous(sweep: SweepSnapshot) -> SweepSnapshot:
    return dataclasses.replace(sweep, points=tuple(map(_anonymous_point, sweep.points)))


def _anonymous_point(point: PointSnapshot) -> PointSnapshot:
    attempts = (dataclasses.replace(attempt, node=attempt.node and NODE) for attempt in point.attempts)
    return dataclasses.replace(point, attempts=tuple(attempts))


def refresh(folder: Path = GALLERY) -> list[Path]:
    """Writes each report with its plots, tables and page into a folder of its own; returns the Markdown files."""
    return [write_files(sweep, folder / name / "report.md", html=True) for name, sweep in snapshots().items()]


def main(taken: Sequence[Path]) -> None:
    for path in taken:
        sweep = anonymous(SweepSnapshot.from_json(path.read_bytes()))
        (GALLERY / f"{sweep.name}.json").write_text(sweep.to_json(), encoding="utf-8")
    for report in refresh():
        print(report)


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
