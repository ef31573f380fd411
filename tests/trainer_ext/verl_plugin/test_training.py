"""One real job: unmodified `python -m verl.trainer.main_ppo`, two steps of GRPO with the trace, on this machine's CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import verl
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import trainer_ext
from trainer_ext import records

CONF = Path(trainer_ext.__file__).parent / "conf"
ROWS, RESPONSE_LENGTH = 16, 16


def filled(value: Any, names: dict[str, str]) -> Any:
    """What the orchestrator does to a config: plain text for placeholders, in every string."""
    if isinstance(value, dict):
        return {key: filled(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, names) for item in value]
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace("{" + name + "}", text)
    return value


def prepared_job(folder: Path, *overrides: str) -> dict[str, Any]:
    """The attempt folder's config.yaml, and the job section of it."""
    search = f"hydra.searchpath=[file://{Path(verl.__file__).parent / 'trainer' / 'config'}]"
    with initialize_config_dir(str(CONF), version_base=None):
        config = OmegaConf.to_container(compose("influence", [search, *overrides]), resolve=True)
    attempt = folder / "attempt"
    attempt.mkdir()
    places = {"root": folder, "sweep_dir": folder, "point_dir": folder, "attempt_dir": attempt}
    config = filled(config, {"python": sys.executable, **{name: str(path) for name, path in places.items()}})
    (attempt / records.CONFIG).write_text(yaml.safe_dump(config))
    job: dict[str, Any] = config["job"]
    return job


def run(job: dict[str, Any], folder: Path) -> str:
    environment = {**os.environ, **job["env"], records.ENV_ATTEMPT_DIR: str(folder / "attempt")}
    log = folder / "console.log"
    with log.open("w") as output:
        for command in [*filter(None, job["prepare"]), job["command"]]:
            done = subprocess.run(
                command, env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT, timeout=500
            )
            assert done.returncode == 0, log.read_text()[-4000:]
    return log.read_text()


@pytest.mark.verl
def test_two_steps_of_real_training_leave_what_the_file_contract_asks(tmp_path: Path) -> None:
    console = run(prepared_job(tmp_path, "profile=smoke", "prompts.size=8"), tmp_path)
    assert "[influence_trace] setup enable=True" in console
    rows = [json.loads(line) for line in (tmp_path / "attempt" / records.METRICS).read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    for row in rows:
        check_metrics(row["data"])
        check_scores(tmp_path / "attempt" / records.INFLUENCE_DIR / records.npz_name(row["step"]), row["data"])
    strays = {path.name for path in tmp_path.iterdir()} - {"attempt", "assets", "console.log"}
    assert not strays, "files outside the attempt folder"


@pytest.mark.verl
def test_two_ranks_capture_in_the_update_and_profile_their_second_step(tmp_path: Path) -> None:
    ranks = ["trainer.n_gpus_per_node=2", "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8"]
    settings = ["influence.output_function=log_prob_reward", "influence.profile=true"]
    console = run(prepared_job(tmp_path, "profile=smoke", "prompts.size=8", *ranks, *settings), tmp_path)
    assert console.count("[influence_trace] capture inline: one weight for each response") == 2
    for row in map(json.loads, (tmp_path / "attempt" / records.METRICS).read_text().splitlines()):
        file = tmp_path / "attempt" / records.INFLUENCE_DIR / records.npz_name(row["step"])
        check_metrics(row["data"])
        check_scores(file, row["data"])
        assert json.loads(str(np.load(file)["meta"]))["inline"] is True
        assert row["data"]["timing_s/influence_forward_2"] > 0
        assert row["data"]["timing_s/influence_loss_backward"] > 0
    traces = {path.name for path in (tmp_path / "attempt" / "profile").iterdir()}
    assert traces == {"step_000002_rank0.json.gz", "step_000002_rank1.json.gz"}


def check_metrics(data: dict[str, Any]) -> None:
    assert data["influence_trace/rows_emitted"] == ROWS
    assert 0 < data["timing_s/influence_hessian_solve"] < data["timing_s/influence_pop_rows"]
    assert data["timing_s/update_actor"] > 0
    assert data["training/rollout_probs_diff_max"] < 1e-4, "rollout and trainer hold the same weights"
    assert 0.1 < data["perf/physical_memory_peak_gb"] < 16
    assert 0.1 < data["perf/rank_host_memory_peak_gb"] < data["perf/host_memory_peak_gb"] < 16
    assert np.isfinite(data["actor/grad_norm"])


def check_scores(path: Path, data: dict[str, Any]) -> None:
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    scores, mask, lengths = arrays["scores"], arrays["mask"], arrays["lengths"]
    assert scores.shape == mask.shape == arrays["response_ids"].shape
    assert len(scores) == ROWS
    assert lengths.max() <= RESPONSE_LENGTH
    assert np.array_equal(np.isnan(scores), ~mask)
    assert int(lengths.sum()) == data["influence_trace/debug_capture_selected_tokens"]
    assert int(mask.sum()) == data["influence_trace/scored_tokens"]
    for uid in set(arrays["uid"].tolist()):
        group = arrays["uid"] == uid
        assert group.sum() == 4
        contrast = len(set(arrays["accepted"][group].tolist())) == 2
        assert mask[group].sum() == (lengths[group].sum() if contrast else 0)
        assert not contrast or np.any(arrays["advantage"][group] != 0)
    meta = json.loads(str(arrays["meta"]))
    assert meta["config"]["projection_dim_factor"] == 16
    assert len(meta["modules"]) == 14
    assert all(module["residual"] < 1e-3 for module in meta["modules"].values())
