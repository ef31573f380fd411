"""Rollout with transformers alone: `actor_rollout_ref.rollout.name=hf`. For machines without vLLM, and for exactness.

What verl wants of a rollout: a replica that launches the server (`trainer_ext.rollout_server`), and an adapter inside the
trainer's worker that hands the weights over after every update.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from torch import Tensor
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.device import get_device_name, get_resource_name
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import CONTROL_METHOD_CONCURRENCY, RolloutReplica, TokenOutput

from trainer_ext.rollout_server import TransformersServer, to_wire

ROLLOUT = "hf"
"""`actor_rollout_ref.rollout.name`."""


def server_name(replica_rank: int, suffix: str = "") -> str:
    return f"transformers_server_{replica_rank}{suffix}"


def launch_server(config: Any, model_config: Any, replica_rank: int, suffix: str = "", **options: Any) -> Any:
    """Start the server of a replica, or find it where it was started ahead of time. Returns its Ray handle."""
    actor = ray.remote(TransformersServer).options(
        name=server_name(replica_rank, suffix),
        get_if_exists=True,
        num_cpus=1,
        max_concurrency=max(1000, config.max_num_seqs + CONTROL_METHOD_CONCURRENCY),
        **options,
    )
    return actor.remote(config, model_config, get_device_name(), omega_conf_to_dataclass, TokenOutput)


class TransformersReplica(RolloutReplica):
    """One server, on the node, and on the GPU, of the trainer's first rank of this replica."""

    async def launch_servers(self) -> None:
        node, devices = await self.workers[0].__ray_call__.remote(_placement)
        options: dict[str, Any] = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False)}
        if get_device_name() != "cpu":  # the server asks Ray for no GPU: it shares the trainer's
            visible = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, devices))}
            options["runtime_env"] = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1", **visible}}
        server = launch_server(self.config, self.model_config, self.replica_rank, self.name_suffix, **options)
        host, _ = await server.get_server_address.remote()
        self.servers = [server]
        self._server_handle, self._server_address = server, f"{host}:{self.replica_rank}"


def _placement(_worker: Any) -> tuple[str, list[Any]]:
    """(node, devices) of the worker that Ray runs this in."""
    context = ray.get_runtime_context()
    return context.get_node_id(), context.get_accelerator_ids().get(get_resource_name(), [])


class TransformersAdapter(BaseRollout):
    """The server's counterpart inside the trainer's worker."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        ranks = (
            self.config.tensor_model_parallel_size
            * self.config.data_parallel_size
            * self.config.pipeline_model_parallel_size
        )
        rank = int(os.environ["RANK"])
        self._leads = rank % ranks == 0
        self._server_name = server_name(rank // ranks if replica_rank == -1 else replica_rank)

    async def resume(self, tags: list[str]) -> None: ...
    async def release(self) -> None: ...

    async def update_weights(
        self,
        weights: Iterable[tuple[str, Tensor]],
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        """Send full tensors to the server. Every rank walks the weights, for gathering them is collective.

        Raises:
            ValueError: a checkpoint engine that sends differences.
        """
        if wire_format != "named_tensors":
            raise ValueError(
                f"rollout hf takes whole tensors, not {wire_format!r}: set checkpoint_engine.backend=naive"
            )
        references = []
        for name, tensor in weights:
            if self._leads:
                references.append(ray.put(to_wire(name, tensor)))
        if self._leads:
            await ray.get_actor(self._server_name).update_weights.remote(references, global_steps=global_steps)
