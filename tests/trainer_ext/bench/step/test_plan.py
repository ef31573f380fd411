"""The plan of a step benchmark, and the job's config that follows from it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_ext.bench.step.values import INLINE, OFF, make_plan
from trainer_ext.bench.step.cases import StepCase
from trainer_ext.bench.step.plan import StepPlan, build_model, compose_job, influence_section


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    return compose_job(make_plan(ranks=2), Path("/models/tiny"))


def test_one_sequence_fills_a_micro_batch_so_that_no_mask_is_needed(job: dict[str, Any]) -> None:
    actor, rollout, model = (job["actor_rollout_ref"][name] for name in ("actor", "rollout", "model"))
    assert actor["ppo_micro_batch_size_per_gpu"] == rollout["log_prob_micro_batch_size_per_gpu"] == 1
    assert not actor["use_dynamic_bsz"]
    assert not rollout["log_prob_use_dynamic_bsz"]
    assert model["override_config"]["attn_implementation"] == "sdpa"
    assert model["use_fused_kernels"], "without it verl takes log-probabilities one token at a time"
    assert model["enable_gradient_checkpointing"]


def test_all_steps_see_the_same_weights(job: dict[str, Any]) -> None:
    assert job["actor_rollout_ref"]["actor"]["optim"]["lr"] == 0.0


def test_sizes_are_those_of_all_ranks(job: dict[str, Any]) -> None:
    assert job["data"]["train_batch_size"] == 2 * 2
    assert job["actor_rollout_ref"]["rollout"]["n"] == 4
    assert job["actor_rollout_ref"]["rollout"]["custom"] == {"replay": {"length": [3, 9]}}
    assert job["trainer"]["n_gpus_per_node"] == 2
    assert job["trainer"]["total_training_steps"] == 6
    assert job["actor_rollout_ref"]["model"]["path"] == "/models/tiny"


def test_a_cpu_gets_the_settings_of_a_gpu_on_another_platform(job: dict[str, Any]) -> None:
    gpu = compose_job(make_plan(ranks=2, device="cuda"), Path("/models/tiny"))
    assert gpu["trainer"]["device"] == "cuda"
    assert "VERL_PLATFORM" not in gpu["job"]["env"]
    assert job["job"]["env"]["VERL_PLATFORM"] == "cpu"
    assert gpu["actor_rollout_ref"] == job["actor_rollout_ref"]


def test_a_case_is_the_jobs_section_with_its_settings(job: dict[str, Any]) -> None:
    section = influence_section(job, INLINE)
    assert section == {**job["influence"], **(INLINE.settings or {}), "enable": True}
    assert influence_section(job, OFF)["enable"] is False


def test_a_setting_that_does_not_exist_is_named_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="case x: the influence section has no factor"):
        compose_job(make_plan(cases=(OFF, StepCase("x", {"factor": 3}))), Path("m"))


def test_an_override_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the job's config: .*no_such_key"):
        compose_job(make_plan(overrides=("trainer.no_such_key=1",)), Path("m"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "--steps: must be 1 or more, got 0"),
        ({"prompt_tokens": 0}, "--prompt-tokens: must be 1 or more"),
        ({"per_prompt": 1}, "--per-prompt: a contrast takes 2 responses or more, got 1"),
        ({"response": (9, 3)}, "--response: expected shortest:longest, got 9:3"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(**change)


def test_a_plan_survives_json() -> None:
    plan = make_plan(overrides=("a=1",))
    assert StepPlan.of_mapping(json.loads(json.dumps(asdict(plan)))) == plan


def test_the_small_model_ties_its_embeddings_as_the_large_one_does(tmp_path: Path) -> None:
    folder = build_model(make_plan(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"], "verl's fused kernel finds an untied head still sharded"
    assert build_model(make_plan(), tmp_path) == folder
