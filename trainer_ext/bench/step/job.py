"""The cases of the step benchmark as the steps of one whole verl job: Ray, replayed responses, rewards, advantages, update."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trainer_ext import records
from trainer_ext.assets import prompts
from trainer_ext.bench.step.events import Event
from trainer_ext.bench.step.launch import GRACE_S, LOG_LINES, POLL_S, Saw
from trainer_ext.bench.step.plan import StepPlan, influence_section
from trainer_ext.bench.step.report import StepRow

SCHEDULE_MODULE = "trainer_ext.bench.step.scheduled_trainer"
TRAINER_MODE = SCHEDULE = "influence_schedule"
PARTS = ("update_actor", "old_log_prob", "gen", "adv", "update_weights", "step")
"""Phases of verl's own, beside those of the trace."""
MEMORY = {
    "device": "perf/physical_memory_peak_gb",
    "allocated": "perf/max_memory_allocated_gb",
    "process": "perf/rank_host_memory_peak_gb",
    "node": "perf/host_memory_peak_gb",
}
"""Of `StepRow.memory_gib`: the plugin's metrics."""
ENDING_S = 15.0
"""For a job that was asked to end."""


def run_job(plan: StepPlan, job: Mapping[str, Any], folder: Path, started: float, saw: Saw) -> list[Event]:
    """Run the plan as one job, and return all events; the arguments are those of `launch.run_ranks`.

    The folder becomes the job's attempt folder.
    """
    ready = prepared(plan, job, folder)
    (folder / records.CONFIG).write_text(yaml.safe_dump(ready))
    with (folder / records.CONSOLE).open("wb") as log:
        process = subprocess.Popen(
            ready["job"]["command"],
            env=environment(ready, folder),
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        failure = _watch(process, plan, folder, started, saw)
    finally:
        _end(process)
    events = events_of(plan, folder / records.METRICS)
    return events if failure is None else [*events, Event(failure=failure)]


def prepared(plan: StepPlan, job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The job's config with a schedule, prompts, and the folder in place of the orchestrator's placeholders."""
    config = copy.deepcopy(dict(job))
    config[SCHEDULE] = [influence_section(job, case) for case in plan.schedule]
    config["trainer"]["v1"]["trainer_mode"] = TRAINER_MODE
    config["trainer"]["resume_mode"] = "disable"
    file = folder / "prompts.parquet"
    prompts.write(file, prompt_rows(plan.prompts * plan.ranks))
    config["data"]["train_files"] = config["data"]["val_files"] = str(file)
    modules = config["job"]["env"]["VERL_USE_EXTERNAL_MODULES"]
    config["job"]["env"]["VERL_USE_EXTERNAL_MODULES"] = f"{modules},{SCHEDULE_MODULE}"
    config["job"]["prepare"] = []
    places = dict.fromkeys(("root", "sweep_dir", "point_dir", "attempt_dir"), str(folder))
    filled: dict[str, Any] = _filled(config, {"python": sys.executable, **places})
    return filled


def prompt_rows(count: int) -> list[dict[str, Any]]:
    """Short prompts in verl's format. Rewards look at the responses alone."""
    return [
        {
            "data_source": "bench",
            "prompt": [{"role": "user", "content": f"Prompt {index}: what is {index} + {index}?"}],
            "ability": "none",
            "reward_model": {"style": "rule", "ground_truth": str(2 * index)},
            "extra_info": {"index": index},
        }
        for index in range(count)
    ]


def environment(job: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Of the job's processes, which find this package where it was found here."""
    here = str(Path(__file__).resolve().parents[3])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), records.ENV_ATTEMPT_DIR: str(folder)}
    return {**os.environ, **own, **{name: str(value) for name, value in job["job"]["env"].items()}}


def events_of(plan: StepPlan, metrics: Path) -> list[Event]:
    """A row for every step that the job has logged."""
    if not metrics.exists():
        return []
    lines = [json.loads(line) for line in metrics.read_text().split("\n")[:-1]]
    return [Event(row=row_of(plan, line["step"], line["data"])) for line in lines]


def row_of(plan: StepPlan, step: int, data: Mapping[str, float]) -> StepRow:
    """The row of a job's step.

    Args:
        step: of the job, from 1.
        data: its metrics.
    """
    case = plan.schedule[step - 1]
    timings = {name.removeprefix("timing_s/"): value for name, value in data.items() if name.startswith("timing_s/")}
    trace = {name.removeprefix("influence_"): value for name, value in timings.items() if name.startswith("influence")}
    responses = plan.prompts * plan.per_prompt
    return StepRow(
        case=case.name,
        settings=case.settings,
        step=(step - 1) % plan.steps + 1,
        seconds={**{name: timings[name] for name in PARTS if name in timings}, **{k: v for k, v in trace.items() if v}},
        memory_gib={name: data[metric] for name, metric in MEMORY.items() if metric in data},
        tokens=round(data["response_length/mean"] * responses),
        scored_tokens=int(data.get("influence_trace/scored_tokens", 0)),
        capture=str((case.settings or {}).get("capture", "")),
    )


def _watch(process: subprocess.Popen[bytes], plan: StepPlan, folder: Path, started: float, saw: Saw) -> str | None:
    """None when the job has ended well; else what went wrong."""
    known = 0
    while True:
        code = process.poll()
        events = events_of(plan, folder / records.METRICS)
        if len(events) > known:
            saw(events, events[known:])
            known = len(events)
        if code == 0:
            return None
        if code is not None:
            tail = (folder / records.CONSOLE).read_text(errors="replace").splitlines()[-LOG_LINES:]
            return f"the job ended with {code}: " + " | ".join(line.strip() for line in tail if line.strip())
        if time.time() > started + plan.budget_s + GRACE_S:
            return f"stopped: the budget of {plan.budget_s:g} s is spent"
        time.sleep(POLL_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the job's own process group; Ray's processes end with the driver that they belong to."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, kind)
            try:
                process.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                continue


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    """The value with `{name}` replaced in every string."""
    if isinstance(value, dict):
        return {key: _filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, names) for item in value]
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace("{" + name + "}", text)
    return value
