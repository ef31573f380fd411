"""A search as a report sees it: its trials, which of them are good, and what its parameters weigh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class TrialSnapshot:
    """One trial; `number` is Optuna's."""

    number: int
    point: str | None = None
    """Id; several trials may have one."""
    name: str = ""
    """Of the point."""
    params: Mapping[str, Scalar] = field(default_factory=dict)
    state: str = ""
    """open, complete, infeasible, failed or pruned."""
    values: tuple[float, ...] | None = None
    """Of the objectives, in their order."""
    reason: str | None = None
    saved_gpu_hours: float | None = None


@dataclass(frozen=True)
class SearchSnapshot:
    """A search with what came of it."""

    sampler: str = ""
    seed: int = 0
    wanted: int = 0
    """Trials at most."""
    params: Mapping[str, str] = field(default_factory=dict)
    """Name -> domain, as the sweep file has it."""
    objectives: Mapping[str, str] = field(default_factory=dict)
    """Name -> minimize or maximize."""
    constraints: tuple[str, ...] = ()
    trials: tuple[TrialSnapshot, ...] = ()
    best: int | None = None
    """Number of the best trial, where there is one objective."""
    front: tuple[int, ...] = ()
    """Numbers of the trials that no other beats, by the first objective; of several objectives."""
    knee: int | None = None
    importance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Objective -> parameter -> share, by PED-ANOVA; an objective without enough trials is missing."""

    def trial(self, number: int) -> TrialSnapshot:
        return next(trial for trial in self.trials if trial.number == number)

    @property
    def complete(self) -> tuple[TrialSnapshot, ...]:
        return tuple(trial for trial in self.trials if trial.state == "complete" and trial.values is not None)


def is_log(domain: str) -> bool:
    """Whether a domain is searched on a logarithmic scale."""
    return domain.replace(" ", "").endswith(",log)") and not domain.startswith("choice")
