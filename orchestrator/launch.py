"""From a point and an attempt's row to the attempt folder that a node can run.

Writing is idempotent: after a crash the same row gives the same folder, token included.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import patches
from orchestrator.backends.base import Backend, ContainerBackend
from orchestrator.identity import job_name
from orchestrator.job_section import fill, job_section
from orchestrator.ledger import AttemptRow, PointRow
from orchestrator.model import AttemptState, Pool, Scalar
from orchestrator.overrides import assignment
from orchestrator.paths import AttemptPaths, RootPaths
from orchestrator.peers import NOTHING_USUAL, Usual
from orchestrator.spec_model import HangSpec, SweepSpec
from trainer_ext.records import ENV_IMAGE, AttemptSpec, write_atomic


@dataclass(frozen=True)
class Site:
    """Where jobs of this sweep run."""

    paths: RootPaths
    python: str
    """The interpreter that runs the job on the node."""
    root_inside: Path | None = None
    """Where the job sees the state folder; None: under the same path."""


def site_of(backend: Backend, paths: RootPaths) -> Site:
    """Where the backend's jobs run.

    Raises:
        EnvironmentProblem: they cannot see the state folder.
    """
    if isinstance(backend, ContainerBackend):
        return Site(paths, backend.python, backend.inside(paths.root))
    return Site(paths, sys.executable)


@dataclass(frozen=True)
class Ask:
    """What an attempt is to be given."""

    pool: str | None = None
    host_memory_bytes: int | None = None
    patch: Mapping[str, Scalar] = field(default_factory=dict)
    exclude_nodes: tuple[str, ...] = ()


def new_attempt(point: PointRow, n: int, ask: Ask, now: float) -> AttemptRow:
    """The row of a try that has not begun. Its token is what finds the job again."""
    return AttemptRow(
        sweep=point.sweep,
        point=point.id,
        n=n,
        token=secrets.token_hex(16),
        job_name=job_name(point.sweep, point.hash, n),
        pool=ask.pool,
        host_memory_bytes=ask.host_memory_bytes,
        patch=dict(ask.patch),
        exclude_nodes=ask.exclude_nodes,
        state=AttemptState.CREATED,
        created_at=now,
    )


def write_attempt(
    site: Site,
    spec: SweepSpec,
    point: PointRow,
    config: dict[str, Any],
    attempt: AttemptRow,
    pool: Pool | None,
    usual: Usual = NOTHING_USUAL,
) -> AttemptPaths:
    """Create the attempt folder with `attempt.json` and `config.yaml`.

    Args:
        config: the point's, as it was composed.
        usual: how long comparable attempts took, for the limits of the wrapper's hang detection.
    """
    paths = site.paths.attempt(attempt.sweep, attempt.point, attempt.n)
    paths.dir.mkdir(parents=True, exist_ok=True)
    record = attempt_spec(site, spec, point, config, attempt, pool, usual)
    write_atomic(paths.config, to_yaml(record.config))
    write_atomic(paths.spec, record.to_json())
    return paths


def attempt_spec(
    site: Site,
    spec: SweepSpec,
    point: PointRow,
    config: dict[str, Any],
    attempt: AttemptRow,
    pool: Pool | None,
    usual: Usual = NOTHING_USUAL,
) -> AttemptSpec:
    """What `attempt.json` says; pure."""
    paths = RootPaths(site.root_inside) if site.root_inside else site.paths
    places = {
        "{python}": site.python,
        "{root}": str(paths.root),
        "{sweep_dir}": str(paths.sweep(attempt.sweep)),
        "{point_dir}": str(paths.point(attempt.sweep, attempt.point)),
        "{attempt_dir}": str(paths.attempt(attempt.sweep, attempt.point, attempt.n).dir),
    }
    patch = {**patches.of_pool(pool, config, spec.alias), **attempt.patch}
    config = patches.apply(config, patch)
    job = job_section(config, spec)
    return AttemptSpec(
        token=attempt.token,
        sweep=attempt.sweep,
        point=attempt.point,
        point_hash=point.hash,
        attempt=attempt.n,
        job_name=attempt.job_name,
        pool=attempt.pool,
        card_memory_mib=pool.memory_mib if pool else None,
        overrides=[*point.overrides, *(assignment(f"++{key}", value) for key, value in patch.items())],
        config=fill(config, places),
        prepare=[list(command) for command in fill(job.prepare, places)],
        command=list(fill(job.command, places)),
        env={**_image(pool), **fill(job.env, places)},
        expected_steps=job.expected_steps,
        npz_glob=job.npz_glob,
        expected_npz=job.expected_npz,
        time_limit_s=spec.resources.time_s,
        hang=hang_limits(spec.hang, usual),
        created_at=attempt.created_at,
    )


def _image(pool: Pool | None) -> dict[str, str]:
    """The container that a pool names, for the attempt's record of what it ran in."""
    container = pool.options.get("container") if pool else None
    return {ENV_IMAGE: str(container)} if container else {}


def hang_limits(settings: HangSpec, usual: Usual) -> dict[str, float | None] | None:
    """When the wrapper takes the job for dead, as `orchestrator.job.hang.HangLimits` reads it; None: never."""
    if not settings.enabled:
        return None
    return {
        "factor": settings.step_factor,
        "step_floor_s": settings.step_floor,
        "start_floor_s": settings.start_floor,
        "end_floor_s": settings.end_floor,
        "silence_s": settings.silence,
        "usual_step_s": usual.step_s,
        "usual_start_s": usual.start_s,
    }


def to_yaml(config: dict[str, Any]) -> str:
    """JSON is YAML, and unlike YAML writers it never turns a string into another type on the way back."""
    return json.dumps(config, indent=1, ensure_ascii=False, sort_keys=False)
