"""Dynamic sampling within its limit, in verl's own sampling loop over a store in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from trainer_ext.verl_plugin.refills import DROPPED, GEN_BATCHES, CappedReplayBuffer, capped

BATCH = 4
RESPONSES = 2
MIXED = None
"""Outcome of a group whose responses differ."""


class _InMemory(CappedReplayBuffer):
    """The buffer with a dictionary in the place of TransferQueue. A submitted group runs for one poll, then is complete.

    Each prompt takes the next of `outcomes`: MIXED, or the metric's value that all its responses share.
    """

    def __init__(self, outcomes: Iterator[float | None], **arguments: Any) -> None:
        self._outcomes, self._groups = outcomes, dict[str, float | None]()
        self._running: set[str] = set()
        self._polls = self.submitted = 0
        plain: dict[str, Any] = {
            "trainer_mode": "sync",
            "trainer_config": {},
            "max_off_policy_threshold": 8,
            "max_off_policy_strategy": "drop",
            "sampler_kwargs": {},
            "poll_interval": 0.0,
            "filter_groups_metric": "acc",
            "train_batch_size": BATCH,
            "gen_batch_size": 1,
            "when_exhausted": "stop",
        }
        super().__init__(**{**plain, "refill_fn": self.submit, **arguments})

    def submit(self, count: int) -> None:
        for _ in range(count):
            self._groups[f"p{self.submitted}"] = next(self._outcomes)
            self._running.add(f"p{self.submitted}")
            self.submitted += 1

    def step(self, number: int = 1) -> tuple[KVBatchMeta, dict[str, Any]]:
        """What the trainer does: submit one batch, then sample."""
        self.submit(BATCH)
        return self.sample(number, "train", BATCH)

    def _sync_metadata_from_transfer_queue(self) -> None:
        self._polls += 1
        assert self._polls < 1000, "sampling goes on for ever"
        train = {f"{group}_{index}_0": {} for group in self._groups for index in range(RESPONSES)}
        self.partitions["train"] = train
        self.running_keys["train"] = set(self._running)
        self.finished_keys["train"] = set(self._groups) - self._running
        self._running.clear()
        self.partitions["val"] = {"v_0_0": {}}
        self.finished_keys["val"] = {"v"} if self._polls > 3 else set()

    def _dapo_filtered_keys(self, partition_id: str) -> tuple[set[str], Counter[float]]:
        same = {group: self._groups[group] for group in self.finished_keys[partition_id]}
        return (
            {group for group, value in same.items() if value is not MIXED},
            Counter(value for value in same.values() if value is not MIXED),
        )

    def _clear_groups(self, partition_id: str, uids: set[str]) -> None:
        for uid in uids:
            self._groups.pop(uid, None)
        self.finished_keys[partition_id] -= uids

    def _materialize_batch(self, partition_id: str, selected: list[str], snapshot: dict[str, Any]) -> KVBatchMeta:
        self._clear_groups(partition_id, set(selected))
        keys = [key for key in snapshot if key.split("_")[0] in selected]
        return KVBatchMeta(partition_id=partition_id, keys=keys, tags=[{} for _ in keys])


def buffer(outcomes: list[float | None], then: float | None, batches: int, **arguments: Any) -> _InMemory:
    def endless() -> Iterator[float | None]:
        yield from outcomes
        while True:
            yield then

    return _InMemory(endless(), max_num_gen_batches=batches, **arguments)


def groups_of(batch: KVBatchMeta) -> set[str]:
    return {key.split("_")[0] for key in batch.keys}


def test_without_a_dropped_group_a_step_generates_one_batch() -> None:
    made = buffer([], MIXED, batches=3)
    batch, metrics = made.step()
    assert (groups_of(batch), metrics) == ({"p0", "p1", "p2", "p3"}, {GEN_BATCHES: 1})


def test_dropped_groups_are_replaced_within_the_limit() -> None:
    made = buffer([0.0, 1.0], MIXED, batches=3)
    batch, metrics = made.step()
    assert len(groups_of(batch)) == BATCH
    assert not {"p0", "p1"} & groups_of(batch)
    assert (metrics[DROPPED], metrics[GEN_BATCHES]) == (2, 2.0), "verl submits two for each"


def test_a_metric_that_never_varies_stops_the_job_with_the_reason_and_ways_out() -> None:
    made = buffer([1.0], 0.0, batches=3)
    with pytest.raises(RuntimeError) as stopped:
        made.step(number=7)
    assert made.submitted == 3 * BATCH
    text = str(stopped.value)
    assert "step 7: 3 generation batches of 4 prompts gave 0 of the 4 groups that an update needs" in text
    assert "12 groups were dropped because all their responses have the same acc (0 in 11, 1 in 1)" in text
    assert "raise algorithm.filter_groups.max_num_gen_batches (0: no limit)" in text
    assert "when_exhausted=train" in text


def test_a_limit_of_one_batch_allows_no_refill() -> None:
    made = buffer([0.0], MIXED, batches=1)
    with pytest.raises(RuntimeError, match="gave 3 of the 4 groups"):
        made.step()
    assert made.submitted == BATCH


def test_groups_at_hand_are_trained_on_where_the_settings_say_so() -> None:
    made = buffer([MIXED, MIXED], 0.0, batches=2, when_exhausted="train")
    batch, metrics = made.step()
    assert groups_of(batch) == {"p0", "p1"}
    assert (metrics[DROPPED], metrics[GEN_BATCHES]) == (6, 2.0)


def test_a_step_without_any_group_stops_whatever_the_settings_say() -> None:
    with pytest.raises(RuntimeError, match="gave 0 of the 4 groups"):
        buffer([], 0.0, batches=2, when_exhausted="train").step()


def test_every_step_has_the_whole_limit() -> None:
    made = buffer([0.0, *[MIXED] * 5, 0.0], MIXED, batches=2)
    for number in (1, 2):
        batch, _ = made.step(number)
        assert len(groups_of(batch)) == BATCH


def test_validation_waits_for_its_groups_without_a_limit() -> None:
    batch, metrics = buffer([], MIXED, batches=1).sample(1, "val", 1)
    assert (groups_of(batch), metrics) == ({"v"}, {})


def test_an_unknown_reaction_is_refused() -> None:
    with pytest.raises(ValueError, match="when_exhausted is 'skip'; it can be stop or train"):
        buffer([], MIXED, batches=1, when_exhausted="skip")


def config(limit: int, **sampler_kwargs: str) -> Any:
    return OmegaConf.create(
        {
            "algorithm": {"filter_groups": {"max_num_gen_batches": limit}},
            "trainer": {"v1": {"sampler": {"sampler_kwargs": sampler_kwargs}}},
        }
    )


def plain(**changes: Any) -> ReplayBuffer:
    arguments = {"max_off_policy_threshold": 8, "max_off_policy_strategy": "drop", "refill_fn": len, **changes}
    return ReplayBuffer("sync", {}, sampler_kwargs={}, filter_groups_metric="acc", train_batch_size=3, **arguments)


def test_the_limit_is_put_on_the_buffer_that_verl_builds_and_verl_does_not_see_it() -> None:
    job = config(5, when_exhausted="train")
    seen = []

    def build() -> ReplayBuffer:
        seen.append(job.algorithm.filter_groups.max_num_gen_batches)
        return plain(max_inflight_gen_batches=2, poll_interval=0.5)

    made = capped(build, job)
    assert seen == [0]
    assert job.algorithm.filter_groups.max_num_gen_batches == 5
    assert isinstance(made, CappedReplayBuffer)
    assert (made.max_inflight_gen_batches, made.poll_interval, made.train_batch_size) == (2, 0.5, 3)


@pytest.mark.parametrize("limit", [0, -1])
def test_without_a_limit_the_buffer_is_verls_own(limit: int) -> None:
    assert type(capped(plain, config(limit))) is ReplayBuffer


def test_a_custom_sampler_keeps_its_own_filtering() -> None:
    class Custom(ReplayBuffer):
        pass

    made = capped(lambda: Custom("sync", {}, None, "drop", {}), config(5))
    assert type(made) is Custom
