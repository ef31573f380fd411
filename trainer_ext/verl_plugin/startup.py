"""Shortens the start of a small job, where processes that import torch, transformers and verl one after another are most of it.

On two cores a job of two small steps spends longer importing than training, mostly in a chain: driver, task runner, trainer's
worker, rollout server, agent loop, each waiting for the one before. Nothing here changes what is computed.
"""

from __future__ import annotations

from typing import Any


def skip_sklearn() -> None:
    """Keep transformers from importing scikit-learn, and with it scipy: a fifth of every process's imports.

    It would use one function of it, for assisted decoding, which nothing here does.
    """
    import transformers.utils

    transformers.utils.is_sklearn_available = lambda: False


class InlineRewards:
    """Looks like the handle of verl's reward worker, and is one, without a process: `reward.num_workers=0` selects it.

    The driver makes it and sends it to the agent loop, which calls `handle.compute_score.remote(data)` and awaits the answer.
    """

    def __init__(self, config: Any) -> None:
        self._config = config
        self._worker: Any = None

    @property
    def compute_score(self) -> InlineRewards:
        return self

    async def remote(self, data: Any) -> dict[str, Any]:
        if self._worker is None:  # here, not on the driver: it loads the tokenizer and the reward function
            from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

            self._worker = RewardLoopWorker(self._config)
        return await self._worker.compute_score(data)
