"""Every profile and recipe, as verl itself checks a job before it starts one."""

from __future__ import annotations

from pathlib import Path

import pytest
import verl
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

import trainer_ext

CONF = Path(trainer_ext.__file__).parent / "conf"
PROFILES = sorted(path.stem for path in (CONF / "profile").glob("*.yaml"))


def job(*overrides: str) -> DictConfig:
    search = f"hydra.searchpath=[file://{Path(verl.__file__).parent / 'trainer' / 'config'}]"
    with initialize_config_dir(str(CONF), version_base=None):
        return compose("influence", [search, *overrides])


@pytest.mark.parametrize("recipe", ["grpo", "dapo"])
@pytest.mark.parametrize("profile", PROFILES)
def test_verl_accepts_every_profile_and_recipe_without_critic_or_reference_model(profile: str, recipe: str) -> None:
    config = job(f"profile={profile}", f"recipe={recipe}")
    assert (need_critic(config), need_reference_policy(config)) == (False, False)
    validate_config(config, use_reference_policy=False, use_critic=False)
