"""verl's agent loop workers, giving every response a seed of its own, and on a small machine started ahead of time.

The seed follows from the run's seed, the step, the prompt and the number of the response (`trainer_ext.seeds`). So neither the
order in which requests arrive, nor the server they go to, nor when the job was started shows in what is sampled. Rollouts that
take `seed` among the sampling parameters honour it: vllm, and our hf.

`actor_rollout_ref.rollout.agent.agent_loop_manager_class` names the manager.
"""

from __future__ import annotations

from typing import Any

import ray
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from trainer_ext.seeds import response_seed


class SeededAgentLoopWorker(AgentLoopWorkerTQ.__ray_actor_class__):  # type: ignore[misc]  # Ray hides the plain class there
    """verl's worker."""

    async def _run_agent_loop(self, sampling_params: dict[str, Any], trajectory: dict[str, Any], **named: Any) -> Any:
        prompt = f"validation-{trajectory['sample_index']}" if trajectory["validate"] else named["uid"]
        seed = response_seed(self.rollout_config.seed, trajectory["step"], prompt, named["session_id"])
        return await super()._run_agent_loop({**sampling_params, "seed": seed}, trajectory, **named)


class AgentLoopProcess:
    """Ray actor that holds such a worker. (Ray cannot ship a class whose base Ray has wrapped already.)

    Without arguments it holds nothing at first but its imports. verl makes its workers last, when every other actor is up, and
    then waits for their imports. Processes that `launch_agent_loops` starts import while the trainer's worker does, and become
    workers when verl asks for them.
    """

    def __init__(self, *arguments: Any) -> None:
        self._worker = SeededAgentLoopWorker(*arguments) if arguments else None

    async def become(self, *arguments: Any) -> None:
        self._worker = SeededAgentLoopWorker(*arguments)

    async def generate_sequences(self, batch: Any) -> None:
        await self._worker.generate_sequences(batch)


class SeededAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager, over those workers."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.agent_loop_workers_class = ray.remote(AgentLoopProcess)


def launch_agent_loops(count: int) -> list[Any]:
    """Start `count` processes, or find those already started. Returns at once."""
    actor = ray.remote(AgentLoopProcess)
    return [actor.options(name=f"agent_loop_{index}", get_if_exists=True).remote() for index in range(count)]


class EarlyAgentLoopManager(AgentLoopManagerTQ):
    """verl's manager, over workers that started ahead of time."""

    async def _init_agent_loop_workers(self) -> None:
        self.agent_loop_workers = launch_agent_loops(self.rollout_config.agent.num_workers)
        arguments = (self.config, self.llm_client, self.teacher_client, self.reward_loop_worker_handles)
        for worker in self.agent_loop_workers:
            await worker.become.remote(*arguments)
