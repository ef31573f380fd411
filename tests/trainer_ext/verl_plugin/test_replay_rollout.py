"""The rollout `replay` inside verl: found under its name, and blind to weights."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from torch import Tensor
from verl.workers.rollout.base import get_rollout_class
from verl.workers.rollout.replica import get_rollout_replica_class

from trainer_ext.verl_plugin.replay_rollout import ReplayAdapter, ReplayReplica


def test_verl_finds_both_halves_by_name() -> None:
    assert get_rollout_class("replay", "async") is ReplayAdapter
    assert get_rollout_replica_class("replay") is ReplayReplica


def test_an_update_gathers_no_weight() -> None:
    def weights() -> Iterator[tuple[str, Tensor]]:
        raise AssertionError("a weight was asked for")
        yield

    adapter = ReplayAdapter.__new__(ReplayAdapter)  # without the configs, which it does not look at
    adapter.leads = False
    asyncio.run(adapter.update_weights(weights(), global_steps=1))
