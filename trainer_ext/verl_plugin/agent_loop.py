"""verl's agent loop workers in processes that start before their arguments exist.

verl makes them last, when every other actor is up, and then waits for their imports. Here the processes are started while the
trainer's worker imports (`launch_agent_loops`), and become agent loop workers when verl asks for them:
`actor_rollout_ref.rollout.agent.agent_loop_manager_class=trainer_ext.verl_plugin.agent_loop.EarlyAgentLoopManager`.
"""

from __future__ import annotations

from typing import Any

import ray
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ


class AgentLoopProcess:
    """Ray actor: nothing at first but its imports, then verl's worker."""

    def __init__(self) -> None:
        self._worker: Any = None

    async def become(self, *arguments: Any) -> None:
        self._worker = AgentLoopWorkerTQ.__ray_actor_class__(*arguments)

    async def generate_sequences(self, batch: Any) -> None:
        await self._worker.generate_sequences(batch)


def launch_agent_loops(count: int) -> list[Any]:
    """Start `count` processes, or find those already started. Returns at once."""
    actor = ray.remote(AgentLoopProcess)
    return [actor.options(name=f"agent_loop_{index}", get_if_exists=True).remote() for index in range(count)]


class EarlyAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager, over those processes."""

    async def _init_agent_loop_workers(self) -> None:
        self.agent_loop_workers = launch_agent_loops(self.rollout_config.agent.num_workers)
        arguments = (self.config, self.llm_client, self.teacher_client, self.reward_loop_worker_handles)
        for worker in self.agent_loop_workers:
            await worker.become.remote(*arguments)
