"""The influence trace as a plugin of unmodified verl: set `VERL_USE_EXTERNAL_MODULES=trainer_ext.verl_plugin`.

verl imports this module in every process of a job, while verl itself is only half imported. So it registers the CPU platform,
which verl asks for first, and leaves each other registration to the moment its module is there (`after_import`).

==============  =====================================================  =============================================
what            selected by                                            where
==============  =====================================================  =============================================
platform cpu    env VERL_PLATFORM=cpu                                  platform_cpu.py
rollout hf      actor_rollout_ref.rollout.name=hf                      rollout.py, ../rollout_server.py
trainer mode    trainer.v1.trainer_mode=influence_sync                 trainer.py (driver), worker.py (each rank)
==============  =====================================================  =============================================
"""

import os

from verl.plugin.platform.platform_manager import PlatformRegistry

from trainer_ext.verl_plugin.after_import import after_import
from trainer_ext.verl_plugin.platform_cpu import PlatformCPU, use_gloo_alone
from trainer_ext.verl_plugin.startup import skip_sklearn

ROLLOUT = "hf"
TRAINER_MODE = "influence_sync"


def _register_rollout() -> None:
    from verl.workers.rollout import base

    # verl has no setter for this table; its own documentation of third-party rollouts writes to it like this
    base._ROLLOUT_REGISTRY[(ROLLOUT, "async")] = "trainer_ext.verl_plugin.rollout.TransformersAdapter"


def _register_replica() -> None:
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    def load() -> type:
        from trainer_ext.verl_plugin.rollout import TransformersReplica

        return TransformersReplica

    RolloutReplicaRegistry.register(ROLLOUT, load)


def _register_trainer() -> None:
    from verl.trainer.ppo.v1.trainer_base import register_trainer

    from trainer_ext.verl_plugin.trainer import InfluenceTrainer

    register_trainer(TRAINER_MODE)(InfluenceTrainer)


skip_sklearn()
if PlatformRegistry.get("cpu") is None:
    PlatformRegistry.register("cpu")(PlatformCPU)
if os.environ.get("VERL_PLATFORM") == "cpu":
    after_import("verl.utils.distributed", use_gloo_alone)
after_import("verl.workers.rollout.base", _register_rollout)
after_import("verl.workers.rollout.replica", _register_replica)
after_import("verl.trainer.ppo.v1.trainer_sync", _register_trainer)
