"""The cases of the step benchmark: without the trace, and with it by projection factor, capture and scope."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

OFF = "off"
FACTORS = (64, 32, 512, 128)
"""In the order of running: whatever a time budget cuts off comes last."""
CAPTURES = ("inline", "separate")
SCOPES = ("all_selected", "per_prompt")
COMMON: Mapping[str, Any] = {"output_function": "log_prob_reward"}
"""The function whose gradient both captures bring, so that they compare."""
GOALS = {("inline", 64): 0.10, ("inline", 32): 0.25}
"""Most that the trace may add to `update_actor`, as a share of it, by capture and factor."""
HOST_GOAL_GIB = 60e9 / 2**30
"""Most host memory of one rank at factor 32."""


@dataclass(frozen=True)
class StepCase:
    """One row of the table."""

    name: str
    settings: Mapping[str, Any] | None = field(default_factory=dict)
    """Keys of the job's `influence` section in which the case differs; None: without the trace."""

    @property
    def goal(self) -> float | None:
        """Of the share that it may add to `update_actor`; None: there is none."""
        settings = self.settings or {}
        return GOALS.get((str(settings.get("capture")), int(settings.get("projection_dim_factor", 0))))

    def same_scores_as(self, other: StepCase) -> bool:
        """Whether the other case should give the same scores by another capture."""
        if self.settings is None or other.settings is None:
            return False
        mine, others = ({k: v for k, v in s.items() if k != "capture"} for s in (self.settings, other.settings))
        return mine == others and self.settings != other.settings


def _case(factor: int, capture: str, scope: str) -> StepCase:
    settings = {**COMMON, "projection_dim_factor": factor, "capture": capture, "scope": scope}
    return StepCase(f"f{factor}-{capture}-{scope}", settings)


CASES: tuple[StepCase, ...] = (
    StepCase(OFF, None),
    *(_case(factor, capture, scope) for scope, capture, factor in itertools.product(SCOPES, CAPTURES, FACTORS)),
)


def chosen_cases(patterns: Sequence[str]) -> tuple[StepCase, ...]:
    """The cases that match one of the shell-like patterns, in the table's order; all where no pattern is given.

    `off` is among them always, because everything is compared with it.

    Raises:
        ValueError: a pattern that no case matches.
    """
    for pattern in patterns:
        if not any(fnmatchcase(case.name, pattern) for case in CASES):
            names = ", ".join(case.name for case in CASES)
            raise ValueError(f"--cases: no case matches {pattern!r}; there are {names}")
    matches = [case for case in CASES if case.name == OFF or any(fnmatchcase(case.name, p) for p in patterns)]
    return tuple(matches) if patterns else CASES
