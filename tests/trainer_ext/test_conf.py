"""The Hydra configs that jobs are composed from."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import trainer_ext
from trainer_ext.assets.__main__ import parser
from trainer_ext.influence import InfluenceConfig
from trainer_ext.vhack import VhackConfig
from trainer_ext.vhack.__main__ import parser as vhack_parser

CONF = Path(trainer_ext.__file__).parent / "conf"
PROFILES = sorted(path.stem for path in (CONF / "profile").glob("*.yaml"))
GPU_PROFILES = ["h100x8", "h200x1", "h200x2", "h200x8"]
PLUGIN_KEYS = {"enable", "accepted_threshold", "capture", "profile", "similarity", "unprojected_module"}


@functools.cache
def composed(config: str, *overrides: str) -> dict[str, Any]:
    """Read-only: composing takes half a second, and most tests look at the same few."""
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
    argv = [job["command"], *filter(None, job["prepare"])]
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
    assert config["job"]["prepare"][-2][-4:] == ["--task=chain_sum", "--difficulty=large", "--size=16", "--seed=7"]


def test_one_seed_moves_data_order_and_sampling_and_not_the_projections() -> None:
    config = composed("influence", "seed=5")
    assert config["data"]["seed"] == 5
    assert config["actor_rollout_ref"]["rollout"]["seed"] == 5
    assert config["influence"]["seed"] == 0


def test_the_smoke_profile_rewards_what_random_weights_can_reach() -> None:
    assert composed("influence", "profile=smoke")["reward"]["custom_reward_function"]["name"] == "digit_share"
    assert composed("influence", "profile=local")["reward"]["custom_reward_function"]["name"] == "reasoning_gym"


def leaves(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Every value by its dotted key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{above}{key}.") if isinstance(value, dict) and value else {f"{above}{key}": value}
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    left, right = leaves(one), leaves(other)
    return {key: (left.get(key), right.get(key)) for key in left | right if left.get(key) != right.get(key)}


def test_grpo_is_the_recipe_unless_another_is_chosen() -> None:
    config = composed("influence")
    assert config == composed("influence", "recipe=grpo")
    assert config["algorithm"]["adv_estimator"] == "grpo"
    assert not config["algorithm"]["filter_groups"]["enable"]
    assert config["reward"]["reward_manager"]["name"] == "naive"


@pytest.mark.parametrize("profile", PROFILES)
def test_dapo_changes_four_things_and_nothing_else(profile: str) -> None:
    """Clip-higher, dynamic sampling with a limit, overlong penalty; token-mean loss both recipes have."""
    grpo, dapo = (composed("influence", f"profile={profile}", f"recipe={recipe}") for recipe in ("grpo", "dapo"))
    length = dapo["data"]["max_response_length"]
    assert {key: new for key, (_, new) in differences(grpo, dapo).items()} == {
        "actor_rollout_ref.actor.clip_ratio_high": 0.28,
        "algorithm.filter_groups.enable": True,
        "algorithm.filter_groups.metric": "acc",
        "algorithm.filter_groups.max_num_gen_batches": 10,
        "trainer.v1.sampler.sampler_kwargs": None,
        "trainer.v1.sampler.sampler_kwargs.when_exhausted": "stop",
        "reward.reward_manager.name": "dapo",
        "reward.reward_kwargs.max_resp_len": length,
        "reward.reward_kwargs.overlong_buffer_cfg.enable": True,
        "reward.reward_kwargs.overlong_buffer_cfg.penalty_factor": 1.0,
        "reward.reward_kwargs.overlong_buffer_cfg.log": True,
    }
    assert dapo["actor_rollout_ref"]["actor"]["loss_agg_mode"] == "token-mean"
    assert dapo["actor_rollout_ref"]["actor"]["clip_ratio_low"] == 0.2
    assert dapo["reward"]["reward_kwargs"]["overlong_buffer_cfg"]["len"] == length / 4


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_runs_one_update_of_one_epoch_a_step(profile: str) -> None:
    config = composed("influence", f"profile={profile}")
    actor = config["actor_rollout_ref"]["actor"]
    assert (actor["ppo_epochs"], actor["ppo_mini_batch_size"]) == (1, config["data"]["train_batch_size"])
    assert config["trainer"]["total_training_steps"] == 2


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_a_micro_batch_on_gpus_holds_the_longest_sequence(profile: str) -> None:
    config = composed("influence", f"profile={profile}")
    longest = config["data"]["max_prompt_length"] + config["data"]["max_response_length"]
    actor, rollout = config["actor_rollout_ref"]["actor"], config["actor_rollout_ref"]["rollout"]
    assert actor["use_dynamic_bsz"]
    assert actor["ppo_max_token_len_per_gpu"] % longest == 0
    assert rollout["log_prob_max_token_len_per_gpu"] == actor["ppo_max_token_len_per_gpu"]


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_every_rank_on_gpus_gets_96_responses_of_whole_prompts(profile: str) -> None:
    config = composed("influence", f"profile={profile}")
    prompts, ranks = config["data"]["train_batch_size"], config["trainer"]["n_gpus_per_node"]
    assert f"x{ranks}" in profile
    assert prompts % ranks == 0
    assert prompts // ranks * config["actor_rollout_ref"]["rollout"]["n"] == 96


@pytest.mark.parametrize("profile", GPU_PROFILES)
def test_on_gpus_the_platform_is_verls_own_and_nothing_is_offloaded(profile: str) -> None:
    config = composed("influence", f"profile={profile}")
    assert config["trainer"]["device"] == "cuda"
    assert not {"VERL_PLATFORM", "VERL_ENGINE_DEVICE"} & set(config["job"]["env"])
    fsdp = config["actor_rollout_ref"]["actor"]["fsdp_config"]
    assert (fsdp["param_offload"], fsdp["optimizer_offload"]) == (False, False)


@pytest.mark.parametrize(("profile", "rollout", "sleeps"), [
    ("h200x1", "hf", False), ("h200x2", "hf", False), ("h200x8", "vllm", True), ("h100x8", "vllm", True),
])  # fmt: skip
def test_the_rollout_is_vllm_on_a_cluster_and_hf_on_a_bare_machine(profile: str, rollout: str, sleeps: bool) -> None:
    config = composed("influence", f"profile={profile}")["actor_rollout_ref"]["rollout"]
    assert (config["name"], config["free_cache_engine"]) == (rollout, sleeps)


def test_profiles_of_other_cards_and_counts_say_only_what_differs() -> None:
    large, small = composed("influence", "profile=h200x8"), composed("influence", "profile=h100x8")
    assert set(differences(large, small)) == {
        f"actor_rollout_ref.{key}"
        for key in (
            "actor.ppo_max_token_len_per_gpu",
            "actor.entropy_from_logits_with_chunking",
            "actor.fsdp_config.entropy_from_logits_with_chunking",
            "ref.log_prob_max_token_len_per_gpu",
            "rollout.log_prob_max_token_len_per_gpu",
        )
    }
    one, two = composed("influence", "profile=h200x1"), composed("influence", "profile=h200x2")
    assert {"trainer.n_gpus_per_node": (1, 2), "data.train_batch_size": (6, 12)}.items() <= differences(
        one, two
    ).items()


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_profile_prepares_can_be_made(profile: str) -> None:
    config = composed("influence", f"profile={profile}")
    made = []
    for python, flag, module, *words in filter(None, config["job"]["prepare"]):
        assert (python, flag, module) == ("{python}", "-m", "trainer_ext.assets")
        made.append(str(parser().parse_args(words).out))
    assert config["data"]["train_files"] in made
    model = config["actor_rollout_ref"]["model"]["path"]
    assert model in made or not model.startswith("{root}"), "a model in the root folder is one that the job makes"


def test_the_vhack_group_holds_every_setting_of_the_projection_with_the_defaults_and_is_off() -> None:
    section = composed("influence")["vhack"]
    fields = {field.name: field.default for field in dataclasses.fields(VhackConfig)}
    assert {key: section[key] for key in section if key not in ("enable", "command", "file")} == {
        key: value for key, value in fields.items() if key != "file"
    }
    assert (section["enable"], section["command"], section["file"]) == (False, None, None)
    assert composed("influence")["job"]["prepare"][-1] is None


@pytest.mark.parametrize("profile", ["smoke", "local", "h200x1"])
def test_generated_directions_are_extracted_from_the_profiles_own_model_into_the_file_that_is_used(
    profile: str,
) -> None:
    config = composed("influence", f"profile={profile}", "vhack=generated", "vhack.k=2")
    python, flag, module, *words = config["job"]["prepare"][-1]
    assert (python, flag, module) == ("{python}", "-m", "trainer_ext.vhack")
    asked = vhack_parser().parse_args(list(map(str, words)))
    assert (str(asked.out), asked.model) == (config["vhack"]["file"], config["actor_rollout_ref"]["model"]["path"])
    assert asked.dtype == {"fp32": "float32"}[config["actor_rollout_ref"]["actor"]["fsdp_config"]["model_dtype"]]


def test_the_synthetic_job_replays_from_its_own_config_file() -> None:
    config = composed("synthetic", "trainer.total_training_steps=3")
    assert config["job"]["command"] == ["{python}", "-m", "trainer_ext.synthetic", "{attempt_dir}/config.yaml"]
    assert config["job"]["expected"]["steps"] == 3
