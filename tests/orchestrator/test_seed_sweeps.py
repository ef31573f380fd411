"""Four sweeps of experiment reports that were once run by hand: their files plan the reports' jobs, setting by setting.

The tables are typed from the reports. What a report does not state is not in them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from orchestrator.compose import compose_points, find_verl_config
from orchestrator.expand import expand
from orchestrator.job_section import job_section
from orchestrator.model import Point
from orchestrator.spec import SweepSpec, load

SWEEPS = Path(__file__).parents[2] / "sweeps"
Jobs = dict[str, dict[str, Any]]
"""Settings by name of the job, without the date at its end."""

LOO = {
    "hessian_mode": "inverse",
    "output_function": "training_loss",
    "exclude_self_response": True,
    "max_tokens": -1,
    "skip_optimizer_step": False,
    "total_steps": 2,
    "ppo_epochs": 1,
    "total_epochs": 1,
    "gpus": 8,
}
LOO_FACTORS: Jobs = {
    "infl-excl-perprompt": {**LOO, "scope": "per_prompt", "factor": 512},
    "infl-excl-allsel": {**LOO, "scope": "all_selected", "factor": 512},
    "infl-excl-allsel-f128": {**LOO, "scope": "all_selected", "factor": 128},
    "infl-excl-allsel-f64": {**LOO, "scope": "all_selected", "factor": 64},
}
FULL_TOKEN_TIMING: Jobs = {
    "infl-alltoken-timing": {
        "output_function": "log_prob_advantage",
        "scope": "per_prompt",
        "hessian_mode": "inverse",
        "factor": 256,
        "max_tokens": -1,
        "total_steps": 2,  # step_000001.npz and step_000002.npz
        "gpus": 8,
    },
}
GRAD_SIMILARITY: Jobs = {
    "infl-v2-graddot-f32": {
        "factor": 32,
        "max_hessian_dim": -1,
        "debug_hessian_similarity": True,
        "unprojected_module": "layers.14.self_attn.k_proj",
        "gpus": 8,
    },
}
FOUR = {
    "output_function": "log_prob_reward",
    "contrastive_agg": "mean",
    "hessian_source": "token",
    "max_hessian_dim": -1,
    "exclude_self_response": True,
    "total_steps": 1,
    "ppo_epochs": 1,
    "skip_optimizer_step": False,
    "debug_hessian_similarity": False,
    "gpus": 8,
}
FACTOR_SCOPE: Jobs = {
    "f64-perprompt": {**FOUR, "scope": "per_prompt", "factor": 64},
    "f64-allsel": {**FOUR, "scope": "all_selected", "factor": 64},
    "f32-perprompt": {**FOUR, "scope": "per_prompt", "factor": 32},
    "f32-allsel": {**FOUR, "scope": "all_selected", "factor": 32},
}
REPORTS = {
    "loo-factors": LOO_FACTORS,
    "full-token-timing": FULL_TOKEN_TIMING,
    "grad-similarity": GRAD_SIMILARITY,
    "factor-scope": FACTOR_SCOPE,
}
KEYS = {
    "hessian_mode": "influence.hessian_mode",
    "hessian_source": "influence.hessian_source",
    "output_function": "influence.output_function",
    "contrastive_agg": "influence.contrastive_agg",
    "exclude_self_response": "influence.exclude_self_response",
    "scope": "influence.scope",
    "factor": "influence.projection_dim_factor",
    "max_tokens": "influence.max_tokens_per_response",
    "max_hessian_dim": "influence.max_hessian_dim",
    "skip_optimizer_step": "influence.skip_optimizer_step",
    "debug_hessian_similarity": "influence.similarity",
    "unprojected_module": "influence.unprojected_module",
    "total_steps": "trainer.total_training_steps",
    "total_epochs": "trainer.total_epochs",
    "ppo_epochs": "actor_rollout_ref.actor.ppo_epochs",
    "gpus": "trainer.n_gpus_per_node",
}
"""Where the reports' words are in a job's configuration. `profile_timing` needs none: phases are always timed."""

pytestmark = pytest.mark.skipif(find_verl_config() is None, reason="verl is not installed")


@functools.cache
def planned(sweep: str) -> tuple[SweepSpec, tuple[Point, ...]]:
    spec = load(SWEEPS / f"{sweep}.yaml")
    return spec, compose_points(spec, expand(spec))


def at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize("sweep", REPORTS)
def test_a_report_is_planned_job_by_job(sweep: str) -> None:
    spec, points = planned(sweep)
    assert spec.profile == "h200x8"
    found = {
        point.name: {word: at(point.config, KEYS[word]) for word in REPORTS[sweep].get(point.name, {})}
        for point in points
    }
    assert found == REPORTS[sweep]
    for point in points:
        steps = point.config["trainer"]["total_training_steps"]
        job = job_section(point.config, spec)
        assert (job.expected_steps, job.expected_npz) == (steps, steps)


@pytest.mark.parametrize("sweep", REPORTS)
def test_a_reports_jobs_begin_on_h100_and_may_go_on_to_h200(sweep: str) -> None:
    spec, _ = planned(sweep)
    assert spec.resources.ladder == ("h100", "h200")
    assert spec.resources.gpus == 8
    assert spec.pools["h100"].memory_mib == 81_559
    assert spec.pools["h200"].memory_mib == 143_771


@pytest.mark.parametrize("sweep", REPORTS)
def test_a_report_is_of_qwen_1_5b_with_96_responses_on_each_of_8_ranks_trained_by_dapo(sweep: str) -> None:
    for point in planned(sweep)[1]:
        config = point.config
        assert "Qwen2.5-1.5B" in at(config, "actor_rollout_ref.model.path")
        responses = at(config, "data.train_batch_size") * at(config, "actor_rollout_ref.rollout.n")
        assert responses == 8 * 96
        assert at(config, "algorithm.filter_groups.enable")
