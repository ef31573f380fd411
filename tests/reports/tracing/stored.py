"""What the database holds, read with `sqlite3` and `json` alone: nothing of the code that draws the report comes between."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

GIB = 1024**3
GPUS = 8


@dataclass(frozen=True)
class Job:
    """A point with its attempts; `attempts` are rows of the table, `evidence` is the last one's."""

    name: str
    parameters: dict[str, Any]
    state: str
    predicted: dict[str, Any]
    attempts: list[dict[str, Any]]

    @property
    def last(self) -> dict[str, Any]:
        return self.attempts[-1]

    @property
    def evidence(self) -> dict[str, Any]:
        found: dict[str, Any] = self.last["evidence"]
        return found

    def metric(self, name: str, step: int = 1) -> float:
        return float(self.evidence["metrics"][str(step)][name])

    def timing(self, phase: str, step: int = 1) -> float:
        plain = phase in ("gen", "step", "update_actor")
        return self.metric(f"timing_s/{phase}" if plain else f"timing_s/influence_{phase}", step)

    def npz(self, field: str, step: int = 1) -> float:
        return float(next(file for file in self.evidence["npz"] if file["step"] == step)[field])

    def gpu_gib(self) -> float:
        inside = max(self.metric("perf/physical_memory_peak_gb", step) for step in (1, 2))
        return max(self.evidence["gpu_peak_bytes"] / GIB, inside)

    def host_gib(self) -> float:
        inside = max(self.metric("perf/host_memory_peak_gb", step) for step in (1, 2))
        return max(self.evidence["host_peak_bytes"] / GIB, inside)

    def seconds(self) -> float:
        return float(self.last["ended_at"] - self.last["started_at"])

    def gpu_hours(self) -> float:
        return sum(GPUS * (attempt["ended_at"] - attempt["started_at"]) / 3600 for attempt in self.attempts)

    def guess(self, what: str) -> list[float]:
        found = self.predicted["on"][self.last["pool"]][what]
        scale = 1 if what == "seconds" else GIB
        return [found[key] / scale for key in ("value", "low", "high")]

    def words(self) -> str:
        """Every text that is stored about it."""
        texts = [self.name, json.dumps(self.parameters)]
        for attempt in self.attempts:
            texts += [str(attempt[key]) for key in ("reason", "facts", "anomalies", "moved", "pool", "handle")]
        return " ".join(texts)


@dataclass(frozen=True)
class Stored:
    sweep: dict[str, Any]
    jobs: dict[str, Job]

    def median(self, axis: str, level: str, figure: Callable[[Job], float]) -> float:
        return median(figure(job) for job in self.at(axis, level))

    def at(self, axis: str, level: str) -> list[Job]:
        return [job for job in self.jobs.values() if str(job.parameters[axis]) == level]


def read(database: Path) -> Stored:
    connection = sqlite3.connect(database)
    connection.row_factory = sqlite3.Row
    try:
        sweep = _row(connection.execute("select * from sweeps").fetchone(), ("git", "spec", "environment"))
        moved = {
            (row["point"], row["attempt"]): row["detail"]
            for row in connection.execute("select * from events where to_state = 'created'")
        }
        attempts: dict[str, list[dict[str, Any]]] = {}
        for row in connection.execute("select * from attempts order by point, n"):
            found = _row(row, ("evidence", "facts", "anomalies", "measured"))
            attempts.setdefault(row["point"], []).append({**found, "moved": moved.get((row["point"], row["n"]))})
        points = [_row(row, ("parameters", "predicted")) for row in connection.execute("select * from points")]
    finally:
        connection.close()
    jobs = {
        point["name"]: Job(
            point["name"], point["parameters"], point["state"], point["predicted"], attempts.get(point["id"], [])
        )
        for point in points
    }
    return Stored(sweep, jobs)


def _row(row: sqlite3.Row, as_json: tuple[str, ...]) -> dict[str, Any]:
    return {
        key: json.loads(row[key]) if key in as_json and isinstance(row[key], str) else row[key]
        for key in row.keys()  # noqa: SIM118
    }
