"""The influence trace as a plugin of unmodified verl: set `VERL_USE_EXTERNAL_MODULES=trainer_ext.verl_plugin`.

verl imports this module in every process of a job, while verl itself is only half imported. So it registers the CPU platform,
which verl asks for first, and leaves each other registration to the moment its module is there (`after_import`).

==============  =====================================================  =============================================
what            selected by                                            where
==============  =====================================================  =============================================
platform cpu    env VERL_PLATFORM=cpu                                  platform_cpu.py
rollout hf      actor_rollout_ref.rollout.name=hf                      rollout.py, ../rollout_server.py
rollout replay  actor_rollout_ref.rollout.name=replay                  replay_rollout.py, ../replay_server.py
trainer mode    trainer.v1.trainer_mode=influence_sync                 trainer.py (driver), worker.py (each rank)
==============  =====================================================  =============================================
"""

import functools
import importlib
import os

from verl.plugin.platform.platform_manager import PlatformRegistry

from trainer_ext.stacks import answer_with_stacks
from trainer_ext.verl_plugin.after_import import after_import
from trainer_ext.verl_plugin.platform_cpu import PlatformCPU, use_gloo_alone
from trainer_ext.verl_plugin.startup import skip_sklearn

ROLLOUTS = {
    "hf": ("trainer_ext.verl_plugin.rollout", "TransformersAdapter", "TransformersReplica"),
    "replay": ("trainer_ext.verl_plugin.replay_rollout", "ReplayAdapter", "ReplayReplica"),
}
"""By name: the module that holds the adapter inside the trainer's worker and the replica that launches servers."""
TRAINER_MODE = "influence_sync"


def _register_adapters() -> None:
    from verl.workers.rollout import base

    for name, (module, adapter, _) in ROLLOUTS.items():
        # verl has no setter for this table; its own documentation of third-party rollouts writes to it like this
        base._ROLLOUT_REGISTRY[(name, "async")] = f"{module}.{adapter}"


def _register_replicas() -> None:
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    def load(module: str, replica: str) -> type:
        loaded: type = getattr(importlib.import_module(module), replica)
        return loaded

    for name, (module, _, replica) in ROLLOUTS.items():
        RolloutReplicaRegistry.register(name, functools.partial(load, module, replica))


def _register_trainer() -> None:
    from verl.trainer.ppo.v1.trainer_base import register_trainer

    from trainer_ext.verl_plugin.trainer import InfluenceTrainer

    register_trainer(TRAINER_MODE)(InfluenceTrainer)


answer_with_stacks()
skip_sklearn()
if PlatformRegistry.get("cpu") is None:
    PlatformRegistry.register("cpu")(PlatformCPU)
if os.environ.get("VERL_PLATFORM") == "cpu":
    after_import("verl.utils.distributed", use_gloo_alone)
after_import("verl.workers.rollout.base", _register_adapters)
after_import("verl.workers.rollout.replica", _register_replicas)
after_import("verl.trainer.ppo.v1.trainer_sync", _register_trainer)
