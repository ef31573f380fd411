"""A job of a second that keeps the file contract of a real one: `python -m trainer_ext.synthetic CONFIG`.

It exists so that the orchestrator can be tried, tested and killed a thousand times without torch or verl. It reads its
config, prints verl's console line, appends verl's metrics.jsonl and writes influence NPZ files whose values depend on nothing
but the config. `synthetic.fail` makes it end in each of the ways real jobs end; it saves and resumes as they do. Imports are
few on purpose: it starts in about 0.2 s.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from trainer_ext import checkpoints, records
from trainer_ext.stacks import answer_with_stacks
from trainer_ext.writer import ScoredResponse, write_step

OOM_LOG = """\
Traceback (most recent call last):
  File "verl/workers/engine/fsdp/transformer_impl.py", line 724, in forward_backward_batch
    loss.backward()
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 18.55 GiB. GPU 0 has a total capacity of 79.11 GiB of which \
11.02 GiB is free. Including non-PyTorch memory, this process has 68.08 GiB memory in use.
[rank1]: torch.distributed.DistBackendError: NCCL communicator was aborted on rank 1.
ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task."""

MIB = 1024**2


class SyntheticFailure(RuntimeError):
    """What `fail: python_error` raises."""


def _hang() -> None:
    print("waiting for a peer that never comes", flush=True)
    while True:
        time.sleep(3600)


def _cuda_oom() -> None:
    print(OOM_LOG, file=sys.stderr, flush=True)
    sys.exit(1)


def _python_error() -> None:
    raise SyntheticFailure("synthetic.fail=python_error asked for this")


def _host_oom() -> None:
    """Takes memory until the kernel ends it; where nothing limits the job, it stops at 2 GiB and fails."""
    taken = [bytearray(b"x") * MIB for _ in range(2048)]
    raise MemoryError(f"{len(taken)} MiB taken, and nobody minded")


BEFORE_STEP: Mapping[str, Callable[[], None]] = {
    "cuda_oom": _cuda_oom,
    "python_error": _python_error,
    "hang": _hang,
    "host_oom": _host_oom,
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}
"""Failures that strike instead of this attempt's step number `synthetic.fail_after + 1`."""
OTHER_FAILURES = ("none", "exit_nonzero_after", "nan_scores", "missing_npz")
"""Failures of the output or of the exit code; `missing_npz` and `nan_scores` hit the last step."""


def failure_mode(settings: Mapping[str, Any], pool: str | None) -> str:
    """The failure to act out on this pool: `fail_on_pools` narrows `fail` to the pools that it names."""
    mode = str(settings["fail"])
    if mode not in BEFORE_STEP and mode not in OTHER_FAILURES:
        raise SystemExit(f"synthetic.fail: unknown {mode!r}; choose from {', '.join([*OTHER_FAILURES, *BEFORE_STEP])}")
    pools = settings.get("fail_on_pools") or []
    return mode if not pools or pool in pools else "none"


def make_responses(config: Mapping[str, Any], step: int, nan_scores: bool = False) -> list[ScoredResponse]:
    """Responses whose every value follows from the influence settings, `synthetic.seed` and the step.

    The last prompt's responses are all accepted: a group without contrast, masked out as in real runs.
    """
    settings, influence = config["synthetic"], config["influence"]
    digest = hashlib.sha256(json.dumps([influence, settings["seed"], step], sort_keys=True).encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    spread = 1e-3 * float(influence["projection_dim_factor"]) ** -0.5
    responses = []
    for prompt in range(settings["prompts"]):
        contrast = prompt < settings["prompts"] - 1
        for sample in range(settings["responses_per_prompt"]):
            length = int(random.integers(4, settings["max_length"] + 1))
            accepted = not contrast or sample % 2 == 0
            scores = random.normal(scale=spread, size=length)
            if nan_scores:
                scores[0] = np.nan
            responses.append(
                ScoredResponse(
                    token_ids=random.integers(0, 1000, size=length),
                    scores=scores,
                    mask=np.full(length, contrast),
                    accepted=accepted,
                    advantage=(1.0 if accepted else -1.0) if contrast else 0.0,
                    uid=f"prompt-{prompt}",
                )
            )
    return responses


def step_metrics(responses: list[ScoredResponse], step: int, seconds: float) -> dict[str, float]:
    """The names that real runs log, with values that a test can predict."""
    valid = np.concatenate([response.scores[response.mask] for response in responses])
    return {
        "training/global_step": step,
        "critic/score/mean": float(np.mean([response.accepted for response in responses])),
        "actor/grad_norm": round(1.0 / step, 6),
        "influence_trace/rows_emitted": len(responses),
        "influence_trace/debug_capture_selected_tokens": int(valid.size),
        "timing_s/step": seconds,
        "timing_s/influence_grad_staging": 0.1 * seconds,
        "timing_s/influence_hessian_solve": 0.5 * seconds,
        "timing_s/influence_token_scoring": 0.2 * seconds,
        "timing_s/influence_score_aggregation": 0.1 * seconds,
        "timing_s/influence_pop_rows": 0.95 * seconds,
        "perf/physical_memory_peak_gb": 1.0,
    }


def log_step(folder: Path, step: int, metrics: Mapping[str, float]) -> None:
    """verl's console line, and a line of its `file` logger."""
    print(" - ".join([f"step:{step}", *(f"{name}:{value!r}" for name, value in metrics.items())]), flush=True)
    with (folder / records.METRICS).open("a") as file:
        file.write(json.dumps({"step": step, "data": dict(metrics)}) + "\n")


def resume(config: Mapping[str, Any], folder: Path) -> int:
    """Take up the newest checkpoint; returns its step, 0 without one."""
    newest = checkpoints.newest(Path(config["trainer"]["default_local_dir"]))
    if newest is None:
        return 0
    rows = checkpoints.restore(newest, folder)
    (folder / records.METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    step = checkpoints.step_of(newest) or 0
    print(f"goes on after step {step}", flush=True)
    return step


def save(config: Mapping[str, Any], folder: Path, step: int) -> None:
    """There is nothing to save but that the step is done."""
    checkpoint = checkpoints.folder_of(Path(config["trainer"]["default_local_dir"]), step)
    checkpoints.begin(checkpoint)
    checkpoints.confirm(checkpoint, folder, keep=config["trainer"]["max_actor_ckpt_to_keep"])


def run(config: Mapping[str, Any], folder: Path, pool: str | None) -> int:
    """Train for pretend; returns the exit code, or ends as `synthetic.fail` says."""
    settings, steps = config["synthetic"], int(config["trainer"]["total_training_steps"])
    mode, every = failure_mode(settings, pool), int(config["trainer"]["save_freq"])
    done = resume(config, folder)
    for step in range(done + 1, steps + 1):
        if mode in BEFORE_STEP and step == done + settings["fail_after"] + 1:
            BEFORE_STEP[mode]()
        time.sleep(settings["step_seconds"])
        responses = make_responses(config, step, nan_scores=mode == "nan_scores" and step == steps)
        if not (mode == "missing_npz" and step == steps):
            write_step(folder / records.INFLUENCE_DIR, step, responses, {"config": config["influence"]})
        log_step(folder, step, step_metrics(responses, step, float(settings["step_seconds"])))
        asked = step < steps and (folder / records.STOP_REQUESTED).exists()
        if asked or (every > 0 and step % every == 0):
            save(config, folder, step)
        if asked:
            return 0
    if every <= 0:
        checkpoints.discard(Path(config["trainer"]["default_local_dir"]))
    return 1 if mode == "exit_nonzero_after" else 0


def main(argv: list[str], environ: Mapping[str, str]) -> int:
    if len(argv) != 1:
        print("usage: python -m trainer_ext.synthetic CONFIG.yaml", file=sys.stderr)
        return 2
    answer_with_stacks()
    path = Path(argv[0])
    config = yaml.safe_load(path.read_text())
    folder = Path(environ.get(records.ENV_ATTEMPT_DIR, path.parent))
    return run(config, folder, environ.get(records.ENV_POOL))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
