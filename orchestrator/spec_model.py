"""The sweep file as a typed model: one class a mapping, one field a key. `docs/sweep-file.md` is its reference.

What one value can be is checked here; what two keys say of each other is `spec_rules`; reading files is `spec`.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from orchestrator import units
from orchestrator.errors import SpecError
from orchestrator.model import Pool, Resources, Scalar, Verdict
from orchestrator.runai_spec import RunaiSpec
from orchestrator.search.spec import SearchSpec
from orchestrator.spec_parts import Part
from orchestrator.spec_parts import SecretSpec as SecretSpec
from orchestrator.yaml_source import KeyPath, Source

SWEEP_NAME_LENGTH = 40
DEFAULT_ALIAS = {"seed": "seed"}
"""Short names that need no declaration."""
IDENTITY_EXCLUDE = (
    "trainer.experiment_name",
    "trainer.project_name",
    "trainer.logger",
    "trainer.default_local_dir",
    "actor_rollout_ref.rollout.trace.experiment_name",  # verl copies both names here
    "actor_rollout_ref.rollout.trace.project_name",
)
RETRY_BUDGETS = {
    "gpu_oom": 2,
    "host_oom": 2,
    "node_failure": 3,
    "hang": 1,
    "time_limit": 0,
    "unknown": 1,
    "missing_output": 1,
}
"""Retries per cause. Preemptions are free; errors of code or configuration would only happen again."""

_RFC1123 = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


def _sweep_name(name: str) -> str:
    if len(name) > SWEEP_NAME_LENGTH:
        raise ValueError(f"has {len(name)} characters; at most {SWEEP_NAME_LENGTH} fit into job names")
    if not _RFC1123.fullmatch(name):
        safe = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        raise ValueError("may hold a-z, 0-9 and inner dashes alone" + (f"; write {safe}" if safe else ""))
    return name


def _scalar(value: Any) -> Any:
    if value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"must be one number, word, true, false or null, not a {type(value).__name__}")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("must not be NaN")
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("must not hold control characters")
    return value


def _column(values: Any) -> Any:
    if not isinstance(values, list):
        raise ValueError(f"must be a list of values; write [{values}]")
    if not values:
        raise ValueError("has no values; a sweep over nothing has no points")
    return values


def _expression(value: Any) -> Any:
    """A number or word in place of an expression is an expression as well."""
    return repr(value) if isinstance(value, bool | int | float) else value


Factor = Annotated[float, Field(ge=1, le=1000)]
"""Bounded, so that its powers stay numbers."""
Count = Annotated[int, Field(strict=True, ge=0)]
Value = Annotated[Scalar, BeforeValidator(_scalar)]
Column = Annotated[tuple[Value, ...], BeforeValidator(_column)]
Text = Annotated[str, BeforeValidator(_expression)]
Duration = Annotated[float, BeforeValidator(units.seconds)]
Size = Annotated[int, BeforeValidator(units.size_bytes)]


class IdentitySpec(Part):
    exclude: tuple[str, ...] = IDENTITY_EXCLUDE
    """Dotted keys that do not make a point another point."""


class PoolSpec(BaseModel):
    """A kind of node; keys beyond these three are the backend's own (partition, constraint, node_pool, ...)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    gpus: Count = 0
    """Per node."""
    memory_mib: Annotated[int, Field(strict=True, gt=0)] | None = None
    """The card's physical memory as the driver states it."""
    patch: dict[str, Text] = Field(default_factory=dict)
    """What the configuration has otherwise on these nodes; no part of a point's identity."""


class ResourcesSpec(Part):
    gpus: Count = 0
    ladder: tuple[str, ...] = ()
    """Pools from small to large."""
    time: Duration | None = None
    """Seconds."""
    host_memory: Size | None = None
    """Bytes."""

    @property
    def time_s(self) -> float | None:
        return self.time

    @property
    def host_memory_bytes(self) -> int | None:
        return self.host_memory

    def model(self) -> Resources:
        return Resources(self.gpus, self.ladder, self.time, self.host_memory)


def _budgets(written: Any) -> Any:
    return RETRY_BUDGETS | written if isinstance(written, dict) else written


class BackoffSpec(Part):
    """Seconds between attempts: base, base x factor, base x factor^2, ..."""

    base: Duration = 5.0
    factor: Factor = 4.0
    max: Duration = 1800.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Each wait is up to this share longer or shorter."""


class CauseSpec(Part):
    """What only some sweeps allow for one cause."""

    patch: dict[str, Text] = Field(default_factory=dict)
    """Key of the configuration -> expression in x, its present value: a retry is then another experiment."""


class RetrySpec(Part):
    attempts_per_point: Annotated[int, Field(strict=True, ge=1)] = 6
    """Ceiling over all causes, preemptions not counted."""
    budgets: Annotated[dict[str, Count], BeforeValidator(_budgets)] = Field(default_factory=lambda: dict(RETRY_BUDGETS))
    """Retries per cause; causes that are not named keep their default."""
    same_error_stops_sweep: Annotated[int, Field(strict=True, ge=1)] = 3
    """So many different points dead of one fingerprint, before any succeeded, stop the sweep."""
    backoff: BackoffSpec = BackoffSpec()
    host_memory_growth: Annotated[Factor, Field(gt=1)] = 1.5
    """A host out-of-memory retry asks for this many times the memory."""
    host_memory_max: Size | None = None
    """Bytes; the largest node's."""
    gpu_oom: CauseSpec = CauseSpec()
    host_oom: CauseSpec = CauseSpec()
    node_failure: CauseSpec = CauseSpec()
    hang: CauseSpec = CauseSpec()
    time_limit: CauseSpec = CauseSpec()
    unknown: CauseSpec = CauseSpec()
    missing_output: CauseSpec = CauseSpec()

    @property
    def patches(self) -> dict[str, dict[str, str]]:
        """The changes that the sweep file allows, by cause."""
        return {cause: patch for cause in RETRY_BUDGETS if (patch := getattr(self, cause).patch)}


class HangSpec(Part):
    """When a job that runs on is taken for dead. Times are seconds."""

    enabled: bool = True
    step_factor: Annotated[Factor, Field(gt=1)] = 6.0
    """A phase may take this many times as long as it usually does, and never less than its floor:"""
    step_floor: Duration = 900.0
    start_floor: Duration = 7200.0
    """Until the first step is done."""
    end_floor: Duration = 900.0
    """From the last step to the end of the job."""
    silence: Duration = 600.0
    """The second sign: no output, or no work on any GPU, for this long."""


class PreflightSpec(Part):
    choose_pool: bool = True
    """Start on the first pool of the ladder that the prediction fits, rather than on the first."""
    model: str | None = None
    """Name of the model whose shapes to reckon with, where the path of the configuration does not tell."""


class NotifySpec(Part):
    """Messages through apprise."""

    urls: tuple[SecretSpec, ...] = ()
    """Apprise URLs; they hold tokens and passwords."""
    when: tuple[Literal["finished", "point_failed", "stopped"], ...] = ("finished", "point_failed", "stopped")


class BudgetSpec(Part):
    gpu_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    max_parallel: Annotated[int, Field(strict=True, ge=1)] = 1


class OutputsSpec(Part):
    """What a complete attempt leaves; what is not named is taken from the configuration's `job.expected`."""

    npz: str | None = None
    """Glob below the attempt folder."""
    steps: Annotated[int, Field(strict=True, ge=1)] | None = None


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


class PatternSpec(Part):
    """A failure signature of the user's own, in the form of `orchestrator/triage/patterns.yaml`."""

    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    role: Literal["root", "cascade", "confirmation"]
    verdict: Verdict | None = None
    """What a root leads to, or a cascade that stands alone."""
    literals: Annotated[tuple[Annotated[str, Field(min_length=4)], ...], Field(min_length=1)]
    """A line is looked at only where it holds one of these."""
    regex: Annotated[str, AfterValidator(_regex)]
    match: Annotated[tuple[str, ...], Field(min_length=1)]
    """Lines that must be recognised."""
    reject: Annotated[tuple[str, ...], Field(min_length=1)]
    """Lines that must not."""


class TriageSpec(Part):
    patterns: tuple[PatternSpec, ...] = ()
    """Compared before the built-in ones."""


class SweepSpec(Part):
    """One sweep. `model_dump()` and `model_validate()` are inverse: the store keeps it that way."""

    name: Annotated[str, AfterValidator(_sweep_name)]
    description: str = ""
    config: Annotated[str, Field(min_length=1)] = "influence"
    """A config of trainer_ext, or after `load` the absolute path of the user's own."""
    profile: str | None = "auto"
    overrides: tuple[str, ...] = ()
    parameters: dict[str, Column] = Field(default_factory=dict)
    alias: dict[str, str] = Field(default_factory=dict)
    zip: dict[str, dict[str, Column]] = Field(default_factory=dict)
    include: tuple[dict[str, Value], ...] = ()
    exclude: tuple[str, ...] = ()
    replicates: dict[str, Column] = Field(default_factory=dict)
    identity: IdentitySpec = IdentitySpec()
    job_name: str | None = None
    backend: Literal["auto", "local", "slurm", "runai", "fake"] = "auto"
    pools: dict[str, PoolSpec] = Field(default_factory=dict)
    resources: ResourcesSpec = ResourcesSpec()
    retry: RetrySpec = RetrySpec()
    budget: BudgetSpec = BudgetSpec()
    outputs: OutputsSpec = OutputsSpec()
    triage: TriageSpec = TriageSpec()
    hang: HangSpec = HangSpec()
    preflight: PreflightSpec = PreflightSpec()
    notify: NotifySpec = NotifySpec()
    runai: RunaiSpec = RunaiSpec()
    search: SearchSpec | None = None

    _source: Source | None = PrivateAttr(default=None)

    @property
    def axes(self) -> dict[str, tuple[Scalar, ...]]:
        """Every swept name with its values: parameters, the columns of `zip`, replicates, then what is searched."""
        columns = {name: values for group in self.zip.values() for name, values in group.items()}
        searched = {name: domain.corners() for name, domain in (self.search.domains if self.search else {}).items()}
        return {**searched, **self.parameters, **columns, **self.replicates}

    def place(self, name: str) -> KeyPath:
        """Where a parameter is declared, for error messages."""
        for group, columns in self.zip.items():
            if name in columns:
                return ("zip", group, name)
        for index, point in enumerate(self.include):
            if name in point and name not in self.axes:
                return ("include", index, name)
        if self.search and name in self.search.params and name not in self.parameters:
            return ("search", "params", name)
        return ("replicates" if name in self.replicates else "parameters", name)

    def target(self, name: str) -> str:
        """The Hydra key behind a parameter's name."""
        return self.alias.get(name) or DEFAULT_ALIAS.get(name) or name

    def pool_models(self) -> dict[str, Pool]:
        return {
            name: Pool(name, pool.gpus, pool.memory_mib, dict(pool.model_extra or {}), dict(pool.patch))
            for name, pool in self.pools.items()
        }

    def error(self, path: KeyPath, message: str, hint: str | None = None) -> SpecError:
        """A `SpecError` at one key, with file and line where the sweep came from a file."""
        return (self._source or Source({})).error(path, message, hint)

    def located_in(self, source: Source) -> Self:
        """The same sweep, knowing where it was written."""
        self._source = source
        return self


def default_config_dir() -> Path:
    """The Hydra configs of trainer_ext, which is installed beside this package."""
    return Path(__file__).resolve().parents[1] / "trainer_ext" / "conf"
