"""Small sweeps made up for tests of what a report works out: only what a test is about has to be said."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reports.snapshot import AttemptSnapshot, NpzSnapshot, PointSnapshot, Scalar, SweepSnapshot

GIB = 1024**3
TIMES = {
    "step": "timing_s/step",
    "gen": "timing_s/gen",
    "update_actor": "timing_s/update_actor",
    "trace": "timing_s/influence",
}
"""Short names of metrics; any other is a phase of the influence trace, or a metric's own name where it has a slash."""


def metric_name(short: str) -> str:
    return short if "/" in short else TIMES.get(short, f"timing_s/influence_{short}")


def made_point(
    parameters: Mapping[str, Scalar],
    times: Mapping[str, float] | None = None,
    *,
    std: float | None = None,
    replicate: Mapping[str, Scalar] | None = None,
    pool: str | None = "h200",
    failed_on: str | None = None,
    **facts: Any,
) -> PointSnapshot:
    """A point that succeeded, with the metrics of step 1.

    Args:
        times: short name -> value; see `TIMES`.
        std: of its score file; None: it has none.
        failed_on: the pool that an earlier attempt ran out of GPU memory on.
    """
    name = facts.pop("name", "-".join(str(value) for value in parameters.values()) or "only")
    metrics = {metric_name(short): value for short, value in (times or {}).items()}
    tries = [(failed_on, "gpu_oom")] if failed_on else []
    attempts = tuple(
        AttemptSnapshot(n, where, "judged", verdict, folder=f"{name}/{n}", evidence=(f"console.log:{n}: words",))
        for n, (where, verdict) in enumerate([*tries, (pool, "completed")], start=1)
    )
    return PointSnapshot(
        **{
            "id": name,
            "name": name,
            "parameters": {**parameters, **(replicate or {})},
            "replicate": replicate or {},
            "state": "succeeded",
            "verdict": "completed",
            "attempts": attempts,
            "metrics": {1: metrics} if metrics else {},
            "step_lines": {1: "metrics.jsonl:1"} if metrics else {},
            "npz": (NpzSnapshot("influence/step_000001.npz", 1, None, 96, 1000, 0.0, std, -1.0, 1.0),) if std else (),
            "folder": f"{name}/{len(attempts)}",
            **facts,
        }
    )


def made_sweep(points: Sequence[PointSnapshot], **facts: Any) -> SweepSnapshot:
    axes = dict.fromkeys(axis for point in points for axis in point.parameters)
    return SweepSnapshot(**{"name": "made", "axes": tuple(axes), "points": tuple(points), **facts})


def crossed(levels: Mapping[str, Sequence[Scalar]], make: Callable[..., PointSnapshot]) -> SweepSnapshot:
    """A point of every combination, made from its levels by name."""
    return made_sweep([make(**dict(zip(levels, row, strict=True))) for row in itertools.product(*levels.values())])
