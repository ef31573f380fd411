"""Running the product as a user does: a subprocess, a state folder, and what they leave."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Product:
    """`python -m orchestrator` on one state folder."""

    root: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    """Beyond this process's own."""

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words, "--root", str(self.root)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **self.environ},
        )

    def run(self, *words: str, timeout: float = 120) -> tuple[int, str]:
        """Exit code and output of one command, waited for."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output

    def start_and_kill(self, *words: str, after: float) -> bool:
        """SIGKILL the orchestrator `after` seconds; its jobs are in sessions of their own. False when it was done before."""
        process = self.start(*words)
        try:
            process.communicate(timeout=after)
            return False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return True

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json")[1])

    def collect(self, folder: Path) -> Any:
        command = [sys.executable, "-m", "orchestrator", "collect", str(folder), "--json"]
        return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)

    def attempt_folders(self, sweep: str) -> list[Path]:
        return sorted(path.parent for path in self.root.glob(f"sweeps/{sweep}/*/*/attempt.json"))

    def report(self, sweep: str) -> str:
        return (self.root / "sweeps" / sweep / "report.md").read_text()


def score_files(folder: Path) -> dict[str, bytes]:
    """The score files of an attempt, byte by byte."""
    return {path.name: path.read_bytes() for path in sorted((folder / "influence").iterdir())}


def metrics_rows(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    """(step, metrics) in the order in which they were logged, without times and memory, which the machine decides."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = ("timing_", "perf/", "actor/perf/")
    return [
        (row["step"], {name: value for name, value in row["data"].items() if not name.startswith(measured)})
        for row in rows
    ]


def wait_for(condition: Callable[[], Any], patience_s: float, what: str = "it") -> Any:
    """What the condition says once it holds."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: it never happened"
        time.sleep(0.05)
    return found


def signal_wrapper(attempt: Path, number: signal.Signals) -> None:
    """SIGKILL is a node that dies, SIGUSR2 a scheduler's warning."""
    os.kill(json.loads((attempt / "claim").read_text())["pid"], number)


def completions(product: Product, sweep: str) -> dict[str, int]:
    """How often each point ran to its end, by the wrappers' own words."""
    count: dict[str, int] = {}
    for folder in product.attempt_folders(sweep):
        outcome = folder / "outcome.json"
        done = outcome.exists() and json.loads(outcome.read_text())["exit_code"] == 0
        count[folder.parent.name] = count.get(folder.parent.name, 0) + done
    return count


def check_a_trained_step(product: Product, sweep: str, point: str) -> None:
    """A sweep of one point and one step of real verl ran once, left real scores, and is reported."""
    assert set(completions(product, sweep).values()) == {1}
    assert point in product.report(sweep)
    (folder,) = product.attempt_folders(sweep)
    (row,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert row["data"]["influence_trace/rows_emitted"] > 0
    assert math.isfinite(row["data"]["actor/grad_norm"])
    (collected,) = product.collect(folder)
    assert [file["nan_in_valid"] for file in collected["npz"]] == [0]


VOLATILE = ("| Started / finished |", "| Command |", "| Uncommitted changes |", "| host memory |", "![Host memory")
"""Rows that say when, where and over which edits of the working tree a sweep ran, and what memory its machine gave."""


MEASURED = ("Host memory", "Host peak", "Job (s)", "Outside its steps")
"""Columns of figures that the machine decides."""


def without_measurements(report: str) -> str:
    """The report without what differs from run to run whatever happens: volatile rows and measured figures."""
    measured: set[int] = set()
    lines = []
    for line in report.splitlines():
        cells = line.split(" | ")
        if line.startswith("| Job |"):
            measured = {column for column, cell in enumerate(cells) if cell.startswith(MEASURED)}
        if line.startswith("| "):
            line = " | ".join(cell for column, cell in enumerate(cells) if column not in measured)
        if not line.startswith(VOLATILE):
            lines.append(line)
    return "\n".join(lines)
