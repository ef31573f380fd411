"""Rollout without a model: `actor_rollout_ref.rollout.name=replay`. Everything else of a step is real.

To time a step with long responses where no generation engine is, or to train again on what another run has generated. One
server answers for all ranks (`trainer_ext.replay_server`, with its settings); weight updates pass it by.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import ray
from torch import Tensor
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import CONTROL_METHOD_CONCURRENCY, RolloutReplica, TokenOutput

from trainer_ext.replay_server import ReplayServer

SERVER_NAME = "replay_server"


class ReplayReplica(RolloutReplica):
    """The one server, started by whichever replica asks for it first."""

    async def launch_servers(self) -> None:
        concurrency = max(1000, self.config.max_num_seqs + CONTROL_METHOD_CONCURRENCY)
        server = (
            ray.remote(ReplayServer)
            .options(name=SERVER_NAME, get_if_exists=True, num_cpus=1, max_concurrency=concurrency)
            .remote(self.config, self.model_config, omega_conf_to_dataclass, TokenOutput)
        )
        host, _ = await server.get_server_address.remote()
        self.servers = [server]
        self._server_handle, self._server_address = server, f"{host}:{self.replica_rank}"


class ReplayAdapter(BaseRollout):
    """The server's counterpart inside the trainer's worker."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        self.leads = os.environ["RANK"] == "0"  # one rank speaks for all, whatever replica it belongs to
        del replica_rank

    async def resume(self, tags: list[str]) -> None: ...
    async def release(self) -> None: ...

    async def update_weights(
        self, weights: Iterable[tuple[str, Tensor]], global_steps: int | None = None, **_: Any
    ) -> None:
        """Tell the server how far training is. No rank walks the weights, so that none of them is gathered."""
        del weights
        if self.leads and global_steps is not None:
            await ray.get_actor(SERVER_NAME).set_global_steps.remote(global_steps)
