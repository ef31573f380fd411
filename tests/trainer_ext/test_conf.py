"""The Hydra configs that jobs are composed from."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import trainer_ext
from trainer_ext.influence import InfluenceConfig

CONF = Path(trainer_ext.__file__).parent / "conf"
PROFILES = sorted(path.stem for path in (CONF / "profile").glob("*.yaml"))
PLUGIN_KEYS = {"enable", "accepted_threshold", "capture", "profile"}


def composed(config: str, *overrides: str) -> dict[str, Any]:
    spec = importlib.util.find_spec("verl")
    assert spec is not None
    assert spec.origin is not None
    search = f"hydra.searchpath=[file://{Path(spec.origin).parent / 'trainer' / 'config'}]"
    with initialize_config_dir(str(CONF), version_base=None):
        plain = OmegaConf.to_container(compose(config, [search, *overrides]), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_the_influence_group_holds_every_field_of_the_engine_with_a_valid_value_and_no_other() -> None:
    section = composed("synthetic")["influence"]
    assert set(section) - PLUGIN_KEYS == {field.name for field in dataclasses.fields(InfluenceConfig)}
    InfluenceConfig.from_mapping({key: value for key, value in section.items() if key not in PLUGIN_KEYS})


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_makes_a_job_of_unmodified_verl(profile: str) -> None:
    config = composed("influence", f"profile={profile}")
    job = config["job"]
    assert job["command"][:3] == ["{python}", "-m", "verl.trainer.main_ppo"]
    assert job["env"]["VERL_USE_EXTERNAL_MODULES"] == "trainer_ext.verl_plugin"
    assert job["expected"] == {"steps": config["trainer"]["total_training_steps"], "npz": "influence/step_*.npz"}
    assert config["trainer"]["v1"]["trainer_mode"] == "influence_sync"
    argv = [job["command"], *job["prepare"]]
    assert all(isinstance(word, str) for command in argv for word in command), "an argv holds strings alone"
    assert all(isinstance(value, str) for value in job["env"].values())


@pytest.mark.parametrize("profile", PROFILES)
def test_placeholders_are_the_five_that_the_orchestrator_fills(profile: str) -> None:
    known = ("{python}", "{root}", "{sweep_dir}", "{point_dir}", "{attempt_dir}")
    for text in strings(composed("influence", f"profile={profile}")):
        for name in known:
            text = text.replace(name, "")
        assert "{" not in text


def test_prompts_lie_in_a_file_named_by_all_that_decides_them() -> None:
    config = composed("influence", "profile=smoke", "prompts.difficulty=large", "prompts.seed=7")
    assert config["data"]["train_files"] == "{root}/assets/prompts/chain_sum-large-n16-s7.parquet"
    assert config["job"]["prepare"][-1][-4:] == ["--task=chain_sum", "--difficulty=large", "--size=16", "--seed=7"]


def test_one_seed_moves_data_order_and_sampling_and_not_the_projections() -> None:
    config = composed("influence", "seed=5")
    assert config["data"]["seed"] == 5
    assert config["actor_rollout_ref"]["rollout"]["seed"] == 5
    assert config["influence"]["seed"] == 0


def test_the_smoke_profile_rewards_what_random_weights_can_reach() -> None:
    assert composed("influence", "profile=smoke")["reward"]["custom_reward_function"]["name"] == "digit_share"
    assert composed("influence", "profile=local")["reward"]["custom_reward_function"]["name"] == "reasoning_gym"


def test_dapo_settings_are_reached_by_override() -> None:
    config = composed(
        "influence",
        "actor_rollout_ref.actor.clip_ratio_high=0.28",
        "algorithm.filter_groups.enable=true",
        "algorithm.filter_groups.metric=acc",
        "reward.reward_manager.name=dapo",
    )
    assert config["algorithm"]["filter_groups"]["metric"] == "acc"


def test_the_synthetic_job_replays_from_its_own_config_file() -> None:
    config = composed("synthetic", "trainer.total_training_steps=3")
    assert config["job"]["command"] == ["{python}", "-m", "trainer_ext.synthetic", "{attempt_dir}/config.yaml"]
    assert config["job"]["expected"]["steps"] == 3
