"""What the step benchmark found, as values: the table and the JSON are two views of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer_ext.bench.report import Environment

SCHEMA = 1
"""Version of the JSON; raised when a field changes its meaning."""
UPDATE, INFLUENCE = "update_actor", "influence"
"""Of `StepRow.seconds`: the update, and what the trace takes before or after it."""


@dataclass(frozen=True)
class StepSetup:
    """What was trained."""

    through: str
    """worker (verl's worker, driven without Ray) or job (a whole verl job)."""
    model: str
    profile: str
    overrides: tuple[str, ...]
    """Of the job's config, over the profile."""
    ranks: int
    prompts: int
    """Of one rank."""
    per_prompt: int
    prompt_tokens: int
    response: tuple[int, int]
    """Shortest and longest response; lengths are uniform between them."""
    seed: int


@dataclass(frozen=True)
class StepRow:
    """One step."""

    case: str
    settings: Mapping[str, Any] | None
    """Keys of the `influence` section that the case sets; None: without the trace."""
    step: int
    """Of the case, from 1. The first one compiles kernels, draws projections and warms the allocator."""
    seconds: Mapping[str, float]
    """By phase, the slowest rank's. `update_actor` and `influence` exclude each other; the others are parts of them."""
    memory_gib: Mapping[str, float]
    """Peaks of the step, the largest of all ranks: device, allocated, process, and of a whole job node
    (`trainer_ext.memory.MemoryPeaks`)."""
    tokens: int
    """Response tokens of one rank, the most of all."""
    scored_tokens: int = 0
    """Of all ranks."""
    capture: str = ""
    """Where the gradients came from, in the plugin's words."""
    agreement: float | None = None
    """rms difference of the first rank's scores from those of the other capture, relative; None: nothing to compare."""

    @property
    def total(self) -> float:
        return self.seconds[UPDATE] + self.seconds.get(INFLUENCE, 0.0)


@dataclass(frozen=True)
class StepReport:
    """All of it."""

    environment: Environment
    setup: StepSetup
    rows: tuple[StepRow, ...]
    failures: tuple[str, ...] = ()
    """What went wrong or was left out, in words."""
    start_up_s: float | None = None
    """From the start of the processes to the first step."""
    expected: tuple[str, ...] = field(default=())
    """Cases that were asked for."""

    def steady(self, case: str) -> StepRow | None:
        """The last step of a case, which is the one that counts."""
        return next((row for row in reversed(self.rows) if row.case == case), None)

    def missing(self) -> tuple[str, ...]:
        """Cases without a row."""
        return tuple(name for name in self.expected if self.steady(name) is None)


def report_mapping(report: StepReport) -> dict[str, Any]:
    """The report in the types of JSON."""
    return {"schema": SCHEMA, **asdict(report)}


def slowest(ranks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Per name, the largest of all ranks that have it."""
    names = dict.fromkeys(name for rank in ranks for name in rank)
    return {name: max(rank[name] for rank in ranks if name in rank) for name in names}
