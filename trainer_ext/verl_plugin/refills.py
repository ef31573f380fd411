"""A limit on dynamic sampling: `algorithm.filter_groups.max_num_gen_batches`, a key that verl 0.9.1's V1 buffer ignores.

DAPO drops every group whose responses all have the same metric, and verl's buffer then submits two new prompts for each. Where
the metric is the same in every group (prompts far too hard, far too easy, a reward that does not vary) that never ends, and the
job burns its time limit without a word. Here a step may generate so many batches of `data.train_batch_size` prompts, its first
included. What follows is `trainer.v1.sampler.sampler_kwargs.when_exhausted`: `stop` the job with the reason, or `train` on the
groups at hand, which verl pads up to a batch. Without a single group there is nothing to train on, and the job stops.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import DAPO_FILTERED_REWARD_COUNTS_KEY, ReplayBuffer

GEN_BATCHES = "training/filter_groups/num_gen_batches"
"""Metric: batches' worth of prompts that a step generated."""
DROPPED = "training/filter_groups/evicted_samples"
"""verl's metric: groups that a step dropped."""
REACTIONS = ("stop", "train")


class _Exhausted(Exception):
    """Inside `sample` only: the step may generate no more, and nothing is on its way."""


class CappedReplayBuffer(ReplayBuffer):
    """verl's buffer, where a step generates at most so many batches.

    Args:
        max_num_gen_batches: 1, 2, ... batches of `train_batch_size` prompts a step, the one that the trainer submits included.
        when_exhausted: `stop` or `train`.
        refill_fn: submits an exact number of fresh prompts.
        arguments: verl's others.

    Raises:
        ValueError: an unknown `when_exhausted`.
    """

    def __init__(
        self,
        *,
        max_num_gen_batches: int,
        when_exhausted: str,
        refill_fn: Callable[[int], Any],
        train_batch_size: int,
        **arguments: Any,
    ) -> None:
        if when_exhausted not in REACTIONS:
            raise ValueError(
                f"trainer.v1.sampler.sampler_kwargs.when_exhausted is {when_exhausted!r}; it can be {' or '.join(REACTIONS)}"
            )
        self._max_batches, self._prompts_a_batch = max_num_gen_batches, train_batch_size
        self._when_exhausted, self._submit = when_exhausted, refill_fn
        self._left = 0
        """Prompts that this step may still submit."""
        self._dropped: Counter[float] = Counter()
        """Groups that this step dropped, by the value that all their responses share."""
        super().__init__(refill_fn=self._refill, train_batch_size=train_batch_size, **arguments)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict[str, Any]]:
        """verl's, within the limit.

        Raises:
            RuntimeError: the limit is reached, `batch_size` groups are not; `when_exhausted` is `stop`, or there is no group.
        """
        if partition_id == "val":
            return super().sample(global_steps, partition_id, batch_size)
        self._left = (self._max_batches - 1) * self._prompts_a_batch
        self._dropped.clear()
        try:
            batch, metrics = super().sample(global_steps, partition_id, batch_size)
        except _Exhausted:
            groups = len(self._complete(partition_id))
            if self._when_exhausted == "stop" or not groups:
                raise RuntimeError(self._explanation(global_steps, groups, batch_size)) from None
            batch, metrics = super().sample(global_steps, partition_id, groups)
            metrics |= {DROPPED: self._dropped.total(), DAPO_FILTERED_REWARD_COUNTS_KEY: dict(self._dropped)}
        return batch, {**metrics, GEN_BATCHES: self._max_batches - self._left / self._prompts_a_batch}

    def _refill(self, count: int) -> None:
        granted = min(count, self._left)
        self._left -= granted
        if granted:
            self._submit(granted)

    def _complete(self, partition_id: str) -> set[str]:
        """Groups with all their responses that were not dropped."""
        return self.finished_keys[partition_id] | self.failure_keys[partition_id]

    def _evict_terminal_groups(
        self,
        global_steps: int,
        partition_id: str,
        eviction_reasons: tuple[set[str], set[str], set[str], Counter[float]],
    ) -> tuple[set[str], int, int, dict[str, Any]]:
        self._dropped.update(eviction_reasons[3])
        return super()._evict_terminal_groups(global_steps, partition_id, eviction_reasons)

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        # verl waits only while it has too few groups or some are on their way
        on_their_way = self.pending_keys[partition_id] or self.running_keys[partition_id]
        if partition_id != "val" and self._left == 0 and not on_their_way:
            raise _Exhausted
        return super()._wait_for_next_poll(partition_id, last_debug_time)

    def _explanation(self, step: int, groups: int, wanted: int) -> str:
        values = ", ".join(f"{value:g} in {count}" for value, count in self._dropped.most_common(3))
        dropped = f"{self._dropped.total()} groups were dropped"
        if values:
            dropped += f" because all their responses have the same {self.filter_groups_metric} ({values})"
        return (
            f"step {step}: {self._max_batches} generation batches of {self._prompts_a_batch} prompts gave {groups} of the "
            f"{wanted} groups that an update needs; {dropped}. Choose prompts that the model solves now and then, sample more "
            "responses a prompt (actor_rollout_ref.rollout.n), raise algorithm.filter_groups.max_num_gen_batches "
            "(0: no limit), or set trainer.v1.sampler.sampler_kwargs.when_exhausted=train to go on with the groups at hand."
        )


def capped(build: Callable[[], ReplayBuffer], config: DictConfig) -> ReplayBuffer:
    """The buffer that verl builds, with the limit of `config` on it; as it is where there is no limit.

    A custom sampler (`trainer.v1.sampler.custom_sampler`) is left alone: filtering is its own affair, as verl has it.

    Args:
        build: verl's own construction from the same config.
        config: of the job.
    """
    groups = config.algorithm.get("filter_groups")
    limit = groups.get("max_num_gen_batches", 0) if groups else 0
    if limit <= 0:
        return build()
    groups.max_num_gen_batches = 0  # verl would warn that it ignores the limit
    try:
        plain = build()
    finally:
        groups.max_num_gen_batches = limit
    if type(plain) is not ReplayBuffer:
        return plain
    arguments = {name: getattr(plain, name) for name in list(inspect.signature(ReplayBuffer).parameters)}
    reaction = config.trainer.v1.sampler.sampler_kwargs.get("when_exhausted", "stop")
    return CappedReplayBuffer(max_num_gen_batches=limit, when_exhausted=reaction, **arguments)
