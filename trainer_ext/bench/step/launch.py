"""Starts the ranks of the step benchmark, and watches them: whatever comes of it, what was measured is kept."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from trainer_ext.bench.step.events import Event, read_events
from trainer_ext.bench.step.plan import StepPlan
from trainer_ext.bench.step.rank_files import CONFIG, EVENTS, PLAN

GRACE_S = 30.0
"""Beyond the budget, for the step that runs and for a rank to end by itself."""
POLL_S = 0.25
LOG_LINES = 12
"""Of a failed rank's log, kept in words."""
RANK = (sys.executable, "-m", "trainer_ext.bench.step.rank")
"""A rank's command; the folder comes behind it."""

Saw = Callable[[list[Event], list[Event]], None]
"""Given all events so far, and the new ones among them."""


def run_ranks(
    plan: StepPlan,
    job: Mapping[str, Any],
    folder: Path,
    started: float,
    saw: Saw,
    command: Sequence[str] = RANK,
    grace_s: float = GRACE_S,
) -> list[Event]:
    """Run the plan in processes of their own, one a rank, and return all events.

    Args:
        job: the job's config.
        folder: empty; holds the files of `rank_files` and a log a rank.
        started: Unix time from which the budget counts.
        saw: told whenever there are more events.
        command: of a rank.
        grace_s: beyond the budget, before the ranks are ended.
    """
    (folder / PLAN).write_text(json.dumps({"plan": asdict(plan), "started": started}))
    (folder / CONFIG).write_text(yaml.safe_dump(dict(job)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [_start([*command, str(folder)], plan, job, folder, rank, port) for rank in range(plan.ranks)]
    try:
        failure = _watch(ranks, folder, started + plan.budget_s + grace_s, saw)
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    events = read_events(folder / EVENTS)
    return events if failure is None else [*events, Event(failure=failure)]


def rank_environment(plan: StepPlan, job: Mapping[str, Any], rank: int, port: int) -> dict[str, str]:
    """What a rank sees: as under Ray one GPU, and the variables that the job sets."""
    named = {
        "RANK": rank,
        "WORLD_SIZE": plan.ranks,
        "LOCAL_RANK": 0,
        "LOCAL_WORLD_SIZE": plan.ranks,
        "RAY_LOCAL_WORLD_SIZE": plan.ranks,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        # verl switches this on with the first transfer of weights to a rollout
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "PYTHONUNBUFFERED": 1,
        **job["job"]["env"],
    }
    if job["trainer"]["device"] == "cuda":
        named["CUDA_VISIBLE_DEVICES"] = rank
    return {**os.environ, **{name: str(value) for name, value in named.items()}}


def _start(
    command: Sequence[str], plan: StepPlan, job: Mapping[str, Any], folder: Path, rank: int, port: int
) -> subprocess.Popen[bytes]:
    environment = rank_environment(plan, job, rank, port)
    with log_of(folder, rank).open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def log_of(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.log"


def _watch(ranks: list[subprocess.Popen[bytes]], folder: Path, until: float, saw: Saw) -> str | None:
    """None when all ranks have ended well; else what went wrong."""
    known = 0
    while True:
        codes = [process.poll() for process in ranks]
        events = read_events(folder / EVENTS)
        if len(events) > known:
            saw(events, events[known:])
            known = len(events)
        failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None:
            tail = log_of(folder, failed).read_text(errors="replace").splitlines()[-LOG_LINES:]
            return f"rank {failed} ended with {codes[failed]}: " + " | ".join(
                line.strip() for line in tail if line.strip()
            )
        if all(code == 0 for code in codes):
            return None
        if time.time() > until:
            return "stopped: the ranks did not end within the budget"
        time.sleep(POLL_S)
