"""From a sweep file and the command line to points, pools and limits: everything that is decided before anything starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from orchestrator import backends, patches
from orchestrator.backends.base import Backend
from orchestrator.compose import PROFILE_GROUP, compose_points, resolve_profile
from orchestrator.errors import SpecError, Unobservable, UsageError
from orchestrator.expand import expand
from orchestrator.job_section import job_section
from orchestrator.model import Point, Pool
from orchestrator.overrides import override_key
from orchestrator.plan import Limits
from orchestrator.policy import Backoff, RetryRules
from orchestrator.search.points import check_search, probes
from orchestrator.spec import load
from orchestrator.spec_model import SweepSpec
from orchestrator.triage.own_patterns import check_examples
from orchestrator.yaml_source import KeyPath

ENV_PROFILE = "ORCHESTRATOR_PROFILE"
"""Names what `profile: auto` stands for on this machine."""


@dataclass(frozen=True)
class Target:
    """Where a sweep's jobs go."""

    backend: Backend
    pools: dict[str, Pool]
    ladder: tuple[str, ...]
    """Pools from small to large; empty where the machine has no GPUs."""

    @property
    def first_pool(self) -> str | None:
        return self.ladder[0] if self.ladder else None


@dataclass(frozen=True)
class Planned:
    """A sweep that could start."""

    spec: SweepSpec
    target: Target
    profile: str | None
    """None where the configuration has no profiles."""
    points: tuple[Point, ...]
    """Of a search, none: its trials bring them."""
    probes: tuple[Point, ...] = ()
    """Of a search: points at the corners of what is searched."""


def plan_sweep(
    path: Path,
    assignments: Sequence[str],
    backend: str | None,
    profile: str | None,
    environ: Mapping[str, str] = os.environ,
) -> Planned:
    """Load, expand and compose; writes nothing.

    Args:
        path: the sweep file.
        assignments: the command line's `key=value` words.
        backend: `--backend`; None: what the sweep file says.
        profile: `--profile`; None: what the sweep file says.
        environ: its `ORCHESTRATOR_PROFILE` is what `profile: auto` stands for here.

    Raises:
        SpecError, ComposeError: a mistake in the file or the overrides.
    """
    words = [*assignments, *([f"backend={backend}"] if backend else []), *([f"profile={profile}"] if profile else [])]
    spec = load(path, words)
    check_examples(spec)
    target = find_target(spec)
    chosen = resolve_profile(spec, can_use_gpu(target, torch_build()), environ.get(ENV_PROFILE))
    spec = spec.model_copy(update={"profile": chosen})
    if spec.search is not None:
        check_search(spec)
    points = compose_points(spec, tuple(probes(spec)) if spec.search else expand(spec))
    for point in points:
        job_section(point.config, spec)  # raises now what would otherwise stop the sweep half-way
        _check_patches(spec, point)
    used = any(override_key(override) == PROFILE_GROUP for override in points[0].overrides)
    if profile not in (None, "auto") and not used:
        raise UsageError(f"--profile {profile}: config {spec.config} has no profiles")
    if spec.search is not None:
        return Planned(spec, target, chosen if used else None, (), points)
    return Planned(spec, target, chosen if used else None, points)


def _check_patches(spec: SweepSpec, point: Point) -> None:
    for cause, change in spec.retry.patches.items():
        for key, text in change.items():
            with _located(spec, ("retry", cause, "patch", key)):
                patches.evaluate({key: text}, point.config, spec.alias)
    for name, pool in spec.pool_models().items():
        for key, text in pool.patch.items():
            with _located(spec, ("pools", name, "patch", key)):
                patches.of_pool(replace(pool, patch={key: text}), point.config, spec.alias)


@contextmanager
def _located(spec: SweepSpec, path: KeyPath) -> Iterator[None]:
    """A mistake is told with its place in the sweep file."""
    try:
        yield
    except SpecError as error:
        raise spec.error(path, error.message, error.hint) from None


def find_target(spec: SweepSpec) -> Target:
    """The backend with its pools: the sweep file's on a cluster, the machine's own on this machine."""
    backend = backends.load("local" if spec.backend == "auto" else spec.backend, spec.runai)
    own = own_pools(backend, spec)
    if backend.name == "local":
        return Target(backend, own, tuple(own))
    pools = {**own, **spec.pool_models()}
    return Target(backend, pools, tuple(spec.resources.ladder) or tuple(pools)[:1])


def own_pools(backend: Backend, spec: SweepSpec) -> dict[str, Pool]:
    """What the backend knows by itself; nothing where it cannot be asked now and the sweep file names all that it uses."""
    try:
        return {pool.name: pool for pool in backend.pools()}
    except Unobservable:
        if not spec.pools:
            raise
        return {}


def torch_build() -> str:
    """The part of the installed torch's version behind the `+` (cpu, cu130, ...); empty where there is none or no torch."""
    try:
        return metadata.version("torch").partition("+")[2]
    except metadata.PackageNotFoundError:
        return ""


def can_use_gpu(target: Target, build: str) -> bool:
    """Whether jobs will find a GPU that their torch can use; on a cluster that is believed, unless they cannot.

    Args:
        build: of torch in this environment. Jobs on Slurm run in it too, unless a pool names a container.
    """
    if target.backend.name == "local":
        return bool(target.pools)
    in_this_environment = target.backend.name == "slurm" and not any(
        "container" in pool.options for pool in target.pools.values()
    )
    return not (in_this_environment and build == "cpu")


def limits(spec: SweepSpec, target: Target) -> Limits:
    return Limits(
        max_parallel=spec.budget.max_parallel,
        gpus_per_attempt=spec.resources.gpus if target.pools else 0,
        gpu_hours=spec.budget.gpu_hours,
        time_limit_s=spec.resources.time_s,
        same_error_stops_sweep=spec.retry.same_error_stops_sweep,
        ladder=tuple(target.pools[name] for name in target.ladder),
        choose_pool=spec.preflight.choose_pool,
    )


def retry_rules(spec: SweepSpec) -> RetryRules:
    retry = spec.retry
    wait = retry.backoff
    return RetryRules(
        attempts_per_point=retry.attempts_per_point,
        budgets=retry.budgets,
        backoff=Backoff(wait.base, wait.factor, wait.max, wait.jitter),
        host_memory_growth=retry.host_memory_growth,
        host_memory_max=retry.host_memory_max,
        patches=retry.patches,
    )
