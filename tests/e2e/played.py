"""A sweep of jobs that end in many ways, as a user runs it on some cluster: while it runs, and what it came to."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from tests.e2e.sweeping import Product

SAID = 3000
"""Characters of output in a failure's message."""


class Stage(Protocol):
    """Where a sweep runs."""

    @property
    def name(self) -> str:
        """Of the sweep."""

    @property
    def product(self) -> Product: ...


StageT = TypeVar("StageT", bound=Stage)


def as_a_user(stage: StageT, path: Path, happens: Callable[[StageT], None], patience_s: float) -> tuple[int, str]:
    """Exit code and output of one `sweep`, while `happens` happens."""
    process = stage.product.start("sweep", str(path))
    try:
        happens(stage)
        output, _ = process.communicate(timeout=patience_s)
    except BaseException as error:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"{stage.name}: {error!r}; the orchestrator said at last:\n{output[-SAID:]}") from error
    return process.returncode, output


@dataclass(frozen=True)
class PlayedSweep(Generic[StageT]):
    """A sweep that came to its end."""

    stage: StageT
    exit_code: int
    output: str
    status: Any
    """Of `status --json`."""

    def point(self, name: str) -> dict[str, Any]:
        (point,) = (point for point in self.status["points"] if point["name"] == name)
        return point

    def states(self) -> dict[str, str]:
        return {point["name"]: point["state"] for point in self.status["points"]}

    def tried(self, name: str) -> list[tuple[str, str]]:
        """(pool, verdict) of each attempt of a point."""
        return [(attempt["pool"], attempt["verdict"]) for attempt in self.point(name)["attempts"]]

    def complete_runs(self) -> dict[str, int]:
        """Point -> attempts in which the job got to its end, by the wrappers' own words."""
        count = {point["name"]: 0 for point in self.status["points"]}
        names = {point["id"]: point["name"] for point in self.status["points"]}
        for folder in self.stage.product.attempt_folders(self.stage.name):
            spec, outcome = json.loads((folder / "attempt.json").read_text()), folder / "outcome.json"
            if outcome.exists():
                count[names[spec["point"]]] += spec["expected_steps"] in json.loads(outcome.read_text())["steps"]
        return count
