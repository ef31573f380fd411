"""When a job that still runs is taken for dead: pure functions over what the wrapper sees of it.

Two signs are needed. No step, for longer than the phase may take: that alone may be a slow step. And beside it either no output
for a while, or no work on any GPU: each alone may be a long kernel, or a pause. A collective operation that waits for a lost
peer keeps its GPU busy and prints nothing; a job that waits for a server prints and leaves its GPUs idle.

What a phase may take is a multiple of what it usually does, in this attempt and in the sweep's completed ones, and never less
than a floor. What nobody has seen yet has the floor of the start, which is long.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Self

STALE_S = 60.0
"""What was seen longer ago says nothing: a stalled file system or driver must not look like a stalled job."""


@dataclass(frozen=True)
class HangLimits:
    """Seconds; as `hang` in attempt.json."""

    factor: float = 6.0
    step_floor_s: float = 900.0
    start_floor_s: float = 7200.0
    end_floor_s: float = 900.0
    silence_s: float = 600.0
    usual_step_s: float | None = None
    """Of a step, in the sweep so far."""
    usual_start_s: float | None = None
    """From the start of the job to the end of its first step."""

    @classmethod
    def of(cls, plain: Mapping[str, float | None]) -> Self:
        """Unknown keys are ignored: the orchestrator may be newer than the node."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in plain.items() if name in known})  # type: ignore[arg-type]


class Phase(StrEnum):
    PREPARE = "preparation"
    START = "start"
    STEPS = "steps"
    END = "end"
    """All expected steps are done."""


@dataclass(frozen=True)
class Signs:
    """What the wrapper sees. Times in seconds on one clock that never goes back."""

    observed_at: float
    phase: Phase
    since: float
    """When the phase's clock began: with the command, or with the end of the last step."""
    output_at: float
    """When output last came; before any, when the command began."""
    idle_since: float | None = None
    """Since when no GPU has done anything; None: one does, or nobody can tell."""
    own_step_s: tuple[float, ...] = ()
    """What this attempt's steps took, the first one left out."""


def allowed_s(signs: Signs, limits: HangLimits) -> float:
    """How long the present phase may go without a step."""
    match signs.phase:
        case Phase.PREPARE:
            return limits.start_floor_s
        case Phase.START:
            return max(limits.start_floor_s, limits.factor * (limits.usual_start_s or 0.0))
        case Phase.STEPS:
            known = [*signs.own_step_s, *([limits.usual_step_s] if limits.usual_step_s else [])]
            return max(limits.step_floor_s, limits.factor * median(known)) if known else limits.start_floor_s
        case Phase.END:
            return limits.end_floor_s


def hung(signs: Signs, limits: HangLimits, now: float) -> str | None:
    """Why the job is taken for dead, for people; None: it is not."""
    if now - signs.observed_at > STALE_S:
        return None
    waited, allowed = now - signs.since, allowed_s(signs, limits)
    second = _second_sign(signs, limits, now)
    if waited <= allowed or second is None:
        return None
    what = "no end" if signs.phase is Phase.END else "no step" if signs.phase is not Phase.PREPARE else "no job yet"
    return f"{what} for {waited:.0f} s (phase {signs.phase}, allowed {allowed:.0f} s), and {second}"


def _second_sign(signs: Signs, limits: HangLimits, now: float) -> str | None:
    silent = now - signs.output_at
    if silent > limits.silence_s:
        return f"no output for {silent:.0f} s"
    if signs.idle_since is not None and now - signs.idle_since > limits.silence_s:
        return f"no work on any GPU for {now - signs.idle_since:.0f} s"
    return None
