"""The job of a second that stands in for training."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from trainer_ext import records, synthetic

CONFIG: dict[str, Any] = {
    "trainer": {"total_training_steps": 2, "save_freq": -1, "default_local_dir": "none", "max_actor_ckpt_to_keep": 1},
    "influence": {"projection_dim_factor": 128, "scope": "per_prompt"},
    "synthetic": {
        "seed": 0,
        "step_seconds": 0.0,
        "prompts": 3,
        "responses_per_prompt": 4,
        "max_length": 12,
        "fail": "none",
        "fail_after": 1,
        "fail_on_pools": [],
    },
}


def config(**settings: Any) -> dict[str, Any]:
    changed = copy.deepcopy(CONFIG)
    changed["synthetic"].update(settings)
    return changed


def steps_logged(folder: Path) -> list[int]:
    path = folder / records.METRICS
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def npz_files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / records.INFLUENCE_DIR).glob("*.npz"))


def run_as_a_job(folder: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    path = folder / records.CONFIG
    path.write_text(yaml.safe_dump(config(**settings)))
    command = [sys.executable, "-m", "trainer_ext.synthetic", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_run_leaves_metrics_console_lines_and_an_npz_for_every_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert synthetic.run(config(), tmp_path, pool=None) == 0
    assert steps_logged(tmp_path) == [1, 2]
    assert npz_files(tmp_path) == ["step_000001.npz", "step_000002.npz"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" - ")[0] for line in lines] == ["step:1", "step:2"]
    assert "influence_trace/rows_emitted:12" in lines[0]


def test_equal_configs_give_equal_scores_and_each_setting_changes_them() -> None:
    def scores(changed: dict[str, Any], step: int = 1) -> list[float]:
        return [float(s) for response in synthetic.make_responses(changed, step) for s in response.scores]

    base = scores(config())
    assert scores(config()) == base
    assert scores(config(), step=2) != base
    assert scores(config(seed=1)) != base
    for name, value in {"projection_dim_factor": 64, "scope": "all_selected"}.items():
        changed = config()
        changed["influence"][name] = value
        assert scores(changed) != base


def test_the_prompt_without_contrast_is_masked_out() -> None:
    responses = synthetic.make_responses(config(), step=1)
    for uid in {response.uid for response in responses}:
        group = [response for response in responses if response.uid == uid]
        has_contrast = len({response.accepted for response in group}) == 2
        assert all(response.mask.all() == has_contrast for response in group)
    assert any(not response.mask.any() for response in responses)


@pytest.mark.parametrize(("mode", "files"), [("nan_scores", 2), ("missing_npz", 1), ("exit_nonzero_after", 2)])
def test_failures_of_the_output_strike_after_all_steps_ran(tmp_path: Path, mode: str, files: int) -> None:
    code = synthetic.run(config(fail=mode), tmp_path, pool=None)
    assert code == (1 if mode == "exit_nonzero_after" else 0)
    assert steps_logged(tmp_path) == [1, 2]
    assert len(npz_files(tmp_path)) == files
    with np.load(tmp_path / records.INFLUENCE_DIR / npz_files(tmp_path)[-1]) as file:
        assert bool(np.isnan(file["scores"][file["mask"]]).any()) == (mode == "nan_scores")


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        ("cuda_oom", 1, "torch.OutOfMemoryError: CUDA out of memory"),
        ("python_error", 1, "SyntheticFailure: synthetic.fail=python_error"),
        ("sigkill", -signal.SIGKILL, ""),
    ],
)
def test_failures_of_the_process_strike_after_the_asked_number_of_steps(
    tmp_path: Path, mode: str, code: int, words: str
) -> None:
    job = run_as_a_job(tmp_path, fail=mode, fail_after=1)
    assert job.returncode == code
    assert words in job.stderr
    assert steps_logged(tmp_path) == [1]


def test_failures_can_be_confined_to_pools() -> None:
    settings = config(fail="cuda_oom", fail_on_pools=["h100"])["synthetic"]
    assert synthetic.failure_mode(settings, "h100") == "cuda_oom"
    assert synthetic.failure_mode(settings, "h200") == "none"
    assert synthetic.failure_mode(settings, None) == "none"
    assert synthetic.failure_mode(config(fail="cuda_oom")["synthetic"], "h200") == "cuda_oom"


def test_an_unknown_failure_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    job = run_as_a_job(tmp_path, fail="explode")
    assert job.returncode == 1
    assert "unknown 'explode'; choose from none" in job.stderr
    assert "Traceback" not in job.stderr


def test_the_job_writes_to_the_attempt_folder_that_the_wrapper_names(tmp_path: Path) -> None:
    path, folder = tmp_path / "config.yaml", tmp_path / "attempt"
    folder.mkdir()
    path.write_text(yaml.safe_dump(config()))
    assert synthetic.main([str(path)], {records.ENV_ATTEMPT_DIR: str(folder)}) == 0
    assert steps_logged(folder) == [1, 2]


def test_starting_loads_neither_torch_nor_a_trainer() -> None:
    script = "import sys, trainer_ext.synthetic; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "verl", "ray", "pandas", "transformers"} & set(loaded)
