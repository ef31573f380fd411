"""What the jobs of the fake backend leave in their attempt folder: the files of real ones, without the training."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from orchestrator.backends.base import JobRequest
from orchestrator.job.outputs import describe_outputs
from orchestrator.paths import AttemptPaths
from trainer_ext.records import AttemptSpec, Outcome, npz_name, write_atomic

OnEnd = Callable[[JobRequest, float, float], None]
"""(request, started_at, ended_at), times in seconds since the epoch: writes what the job leaves behind."""


def succeed(request: JobRequest, started_at: float, ended_at: float) -> None:
    """Everything that `attempt.json` promises: a metrics row a step, the NPZ files, the outcome."""
    paths = AttemptPaths(request.attempt_dir)
    spec = AttemptSpec.from_json(paths.spec.read_bytes())
    steps = list(range(1, (spec.expected_steps or 0) + 1))
    rows = (json.dumps({"step": step, "data": {"fake/step": step}}) + "\n" for step in steps)
    write_atomic(paths.metrics, "".join(rows), durable=False)
    for step in range(1, (spec.expected_npz or 0) + 1):
        _write_scores(paths.influence / npz_name(step), step)
    outputs = [asdict(file) for file in describe_outputs(paths.dir, spec.npz_glob)]
    write_outcome(request, started_at, ended_at, exit_code=0, steps=steps, outputs=outputs)


def fail(exit_code: int | None = 1, *, signal: int | None = None, log: str = "") -> OnEnd:
    """A job that prints `log` and ends with this exit code, or with None by a signal."""

    def on_end(request: JobRequest, started_at: float, ended_at: float) -> None:
        AttemptPaths(request.attempt_dir).console.write_text(log)
        write_outcome(request, started_at, ended_at, exit_code=exit_code, signal=signal)

    return on_end


def write_outcome(
    request: JobRequest,
    started_at: float,
    ended_at: float,
    *,
    exit_code: int | None = None,
    signal: int | None = None,
    steps: Sequence[int] = (),
    stop_reason: str | None = None,
    outputs: Sequence[Mapping[str, object]] = (),
) -> None:
    outcome = Outcome(
        token=request.token,
        exit_code=exit_code,
        signal=signal,
        started_at=started_at,
        ended_at=ended_at,
        phase="run",
        steps=list(steps),
        stop_reason=stop_reason,
        outputs=list(outputs),
        host="fake",
    )
    write_atomic(AttemptPaths(request.attempt_dir).outcome, outcome.to_json(), durable=False)


def _write_scores(path: Path, step: int) -> None:
    """Two responses, one accepted, with a score for each of their tokens."""
    import numpy as np

    mask = np.array([[True, True, True], [True, True, False]])
    scores = np.where(mask, np.linspace(-1.0, 1.0, mask.size).reshape(mask.shape) * step, np.nan)
    path.parent.mkdir(exist_ok=True)
    np.savez(
        path,
        scores=scores.astype(np.float32),
        mask=mask,
        response_ids=np.where(mask, step, 0).astype(np.int32),
        lengths=mask.sum(axis=1).astype(np.int64),
        accepted=np.array([True, False]),
        advantage=np.array([1.0, -1.0], dtype=np.float32),
        uid=np.array(["0", "0"]),
        meta=np.array(json.dumps({"step": step})),
    )
