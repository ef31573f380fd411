"""From a point and an attempt's row to the attempt folder that a node can run.

Writing is idempotent: after a crash the same row gives the same folder, token included.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from orchestrator.identity import job_name
from orchestrator.job_section import fill, job_section
from orchestrator.ledger import AttemptRow, PointRow
from orchestrator.model import AttemptState, Pool
from orchestrator.paths import AttemptPaths, RootPaths
from orchestrator.spec_model import SweepSpec
from trainer_ext.records import AttemptSpec, write_atomic


@dataclass(frozen=True)
class Site:
    """Where jobs of this sweep run."""

    paths: RootPaths
    python: str
    """The interpreter that runs the job on the node."""


def new_attempt(point: PointRow, n: int, pool: str | None, host_memory_bytes: int | None, now: float) -> AttemptRow:
    """The row of a try that has not begun. Its token is what finds the job again."""
    return AttemptRow(
        sweep=point.sweep,
        point=point.id,
        n=n,
        token=secrets.token_hex(16),
        job_name=job_name(point.sweep, point.hash, n),
        pool=pool,
        host_memory_bytes=host_memory_bytes,
        state=AttemptState.CREATED,
        created_at=now,
    )


def write_attempt(
    site: Site, spec: SweepSpec, point: PointRow, config: dict[str, Any], attempt: AttemptRow, pool: Pool | None
) -> AttemptPaths:
    """Create the attempt folder with `attempt.json` and `config.yaml`."""
    paths = site.paths.attempt(attempt.sweep, attempt.point, attempt.n)
    paths.dir.mkdir(parents=True, exist_ok=True)
    record = attempt_spec(site, spec, point, config, attempt, pool)
    write_atomic(paths.config, to_yaml(record.config))
    write_atomic(paths.spec, record.to_json())
    return paths


def attempt_spec(
    site: Site, spec: SweepSpec, point: PointRow, config: dict[str, Any], attempt: AttemptRow, pool: Pool | None
) -> AttemptSpec:
    """What `attempt.json` says; pure."""
    paths = site.paths
    places = {
        "{python}": site.python,
        "{root}": str(paths.root),
        "{sweep_dir}": str(paths.sweep(attempt.sweep)),
        "{point_dir}": str(paths.point(attempt.sweep, attempt.point)),
        "{attempt_dir}": str(paths.attempt(attempt.sweep, attempt.point, attempt.n).dir),
    }
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
        overrides=list(point.overrides),
        config=fill(config, places),
        prepare=[list(command) for command in fill(job.prepare, places)],
        command=list(fill(job.command, places)),
        env=dict(fill(job.env, places)),
        expected_steps=job.expected_steps,
        npz_glob=job.npz_glob,
        expected_npz=job.expected_npz,
        time_limit_s=spec.resources.time_s,
        created_at=attempt.created_at,
    )


def to_yaml(config: dict[str, Any]) -> str:
    """JSON is YAML, and unlike YAML writers it never turns a string into another type on the way back."""
    return json.dumps(config, indent=1, ensure_ascii=False, sort_keys=False)
