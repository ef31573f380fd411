"""What a run of the influence benchmark found, as values: the table and the JSON are two views of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from trainer_ext.bench.ceilings import Ceilings
from trainer_ext.bench.work import Bound, Work, as_mapping

SCHEMA = 1
"""Version of the JSON; raised when a field changes its meaning."""


@dataclass(frozen=True)
class Environment:
    """Where and when."""

    date: str
    """ISO 8601."""
    commit: str | None
    """Of the sources, with `-dirty` where they differ from it; None: unknown."""
    device: str
    torch: str
    note: str = ""


@dataclass(frozen=True)
class Setup:
    """What was scored."""

    model: str
    layers: int
    modules: int
    tokens: int
    prompts: int
    per_prompt: int
    precision: str
    solver: str
    repeats: int
    seed: int
    reference_shape: bool
    """Whether this is the batch and the model of the reference, so that its seconds compare."""


@dataclass(frozen=True)
class CaseRun:
    """What one case took."""

    seconds: float
    """Median over the repeats."""
    all_seconds: tuple[float, ...]
    """Ascending."""
    startup_seconds: float
    """One module of each type, the first call with this config in the process."""
    peak_gib: float | None
    """Measured GPU memory beyond the factors at its highest; None on a CPU."""
    counted_gib: float
    """The same as the engine counts it from shapes."""
    phases: dict[str, float]
    """Seconds by phase as the engine reports them, of the median repeat."""
    routes: dict[str, int]
    """Modules by route."""
    residual: float | None
    """The worst true residual of any module."""
    unscored: int
    """Tokens without a finite score."""


@dataclass(frozen=True)
class Yardstick:
    """One module of a shape, measured beside the engine."""

    shape: str
    k_in: int
    k_out: int
    count: int
    """Modules of this shape."""
    plain_seconds: float | None = None
    """The plain implementation, one module; None: not run."""
    plain_peak_gib: float | None = None
    errors: dict[str, float] = field(default_factory=dict)
    """rms relative score error against fp64, by precision, and of the plain implementation; empty: not run."""


@dataclass(frozen=True)
class CaseReport:
    """One row."""

    name: str
    factor: int
    reference_s: float | None
    """At the reference's own shape; see `Setup.reference_shape`."""
    target_s: float
    work: Work
    distinct_layers: int = 0
    """Layers with factors of their own; the others reuse them."""
    factor_gib: float = 0.0
    """Factors held on the device."""
    run: CaseRun | None = None
    bound: Bound | None = None
    yardsticks: tuple[Yardstick, ...] = ()
    failures: tuple[str, ...] = ()
    """What went wrong, in words; the other cases were measured all the same."""

    def failing(self, lines: Iterable[str]) -> CaseReport:
        """The same with failures added, each said once."""
        return replace(self, failures=tuple(dict.fromkeys((*self.failures, *lines))))

    @property
    def plain_seconds(self) -> float | None:
        """The plain implementation for all modules: seconds of one module of each shape times their count."""
        seconds = [(y.plain_seconds, y.count) for y in self.yardsticks]
        if not seconds or any(one is None for one, _ in seconds):
            return None
        return sum(one * count for one, count in seconds if one is not None)

    @property
    def plain_peak_gib(self) -> float | None:
        return max((y.plain_peak_gib for y in self.yardsticks if y.plain_peak_gib is not None), default=None)

    def error(self, precision: str) -> float | None:
        """The worst module's; None where it was not measured, NaN where a score is missing."""
        return worst(y.errors[precision] for y in self.yardsticks if precision in y.errors)


@dataclass(frozen=True)
class Report:
    """All of it."""

    environment: Environment
    setup: Setup
    ceilings: Ceilings
    cases: tuple[CaseReport, ...]

    @property
    def failed(self) -> bool:
        return any(case.failures for case in self.cases)


def worst(values: Iterable[float]) -> float | None:
    """The largest, and NaN before any number; None of none."""
    return max(values, key=lambda value: (math.isnan(value), value), default=None)


def report_mapping(report: Report) -> dict[str, Any]:
    """The report in the types of JSON; numbers keep all their digits."""
    return {
        "schema": SCHEMA,
        "environment": asdict(report.environment),
        "setup": asdict(report.setup),
        "ceilings": asdict(report.ceilings),
        "cases": [_case_mapping(case) for case in report.cases],
    }


def _case_mapping(case: CaseReport) -> Mapping[str, Any]:
    errors = {name: case.error(name) for name in sorted({name for y in case.yardsticks for name in y.errors})}
    return {
        **asdict(case),
        "work": as_mapping(case.work),
        "plain_seconds": case.plain_seconds,
        "plain_peak_gib": case.plain_peak_gib,
        "errors": errors,
    }
