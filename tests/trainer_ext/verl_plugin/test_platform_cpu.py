"""The CPU as verl sees it."""

from __future__ import annotations

import torch
from verl.plugin.platform import get_platform
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils.device import get_device_id, get_device_name, get_torch_device
from verl.workers.rollout.base import get_rollout_class
from verl.workers.rollout.replica import get_rollout_replica_class

from trainer_ext.verl_plugin.platform_cpu import PlatformCPU


def test_verl_runs_on_the_plugins_platform() -> None:
    assert isinstance(get_platform(), PlatformCPU)
    assert get_device_name() == "cpu"
    assert torch.zeros(1).to(get_device_id()).device.type == "cpu"


def test_memory_figures_are_the_processs_own_and_consistent() -> None:
    device = get_torch_device()
    assert 0 < device.memory_allocated() <= device.max_memory_allocated() * 1.01
    free, total = device.mem_get_info()
    assert 0 < free <= total


def test_random_state_can_be_saved_and_restored() -> None:
    device = get_torch_device()
    before = torch.random.get_rng_state()
    try:
        device.manual_seed(3)
        state = device.get_rng_state()
        first = torch.rand(2)
        device.set_rng_state(state)
        assert torch.equal(torch.rand(2), first)
    finally:
        torch.random.set_rng_state(before)


def test_what_torch_cpu_has_is_reached_through_the_device_module() -> None:
    assert get_torch_device().device_count() == torch.cpu.device_count()


def test_the_plugin_registered_its_rollout_and_its_trainer() -> None:
    assert get_rollout_class("hf").__name__ == "TransformersAdapter"
    assert get_rollout_replica_class("hf").__name__ == "TransformersReplica"
    assert get_trainer_cls("influence_sync").__name__ == "InfluenceTrainer"


def test_gloo_is_asked_for_once() -> None:
    from verl.utils import distributed

    # wrapped by the plugin while verl was imported; the original would ask for cpu:gloo,cpu:gloo
    assert hasattr(distributed.initialize_global_process_group_ray, "__wrapped__")
