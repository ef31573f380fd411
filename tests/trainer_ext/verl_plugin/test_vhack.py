"""Directions in verl's own update: between its clipping and its optimizer, before a checkpoint and in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import FullyShardedDataParallel

from tests.trainer_ext.verl_plugin.engine_world import changed, make_config, parameters, worker_of
from tests.trainer_ext.verl_plugin.projected import FILE, batch_of, config_of, projected_updates, write_directions
from trainer_ext.assets import tiny_qwen2
from trainer_ext.verl_plugin.vhack import PLUGIN_KEYS, STATE_FILE, prepare, settings, step_metrics
from trainer_ext.vhack import VhackConfig, WrongFile, load
from trainer_ext.vhack.basis import coordinates, orthonormal, svd_basis
from trainer_ext.vhack.file import as_written

ROWS = [
    ("a", [5, 6, 7, 8], [50, 51, 52], 1.0, 0.9),
    ("a", [5, 6, 7, 8], [60, 61, 62, 63, 64], 0.0, -1.1),
    ("b", [30, 31], [71, 72, 73, 74], 1.0, 1.3),
    ("b", [30, 31], [75, 76], 0.0, -0.6),
]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("model")
    tiny_qwen2.make(folder, seed=0)
    write_directions(folder)
    return folder


@pytest.fixture
def worker(model: Path) -> Iterator[Any]:
    with worker_of(make_config(model)) as built:
        yield built


def test_an_updates_step_has_nothing_along_the_directions_and_the_rest_of_the_models_is_verls(
    worker: Any, model: Path
) -> None:
    before = parameters(worker)
    after, metrics = projected_updates(worker, model, ROWS, count=1, mode="no_gate", form="update")
    rows = load(model / FILE, as_written(model / FILE), 2, 0.5).v
    assert rows
    for name, v in rows.items():
        weight = before[f"{name}.weight"]
        step = (after[f"{name}.weight"] - weight).double()
        assert float(step.norm()) > 0
        along = orthonormal(v) @ coordinates(step, svd_basis(weight))
        assert float(along.norm() / step.norm()) < 1e-6
    assert metrics["cin"] > 1e-3
    assert metrics["cout"] < 1e-6
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])


def test_directions_of_other_weights_are_refused_by_every_rank(model: Path, tmp_path: Path) -> None:
    other = tmp_path / model.name
    tiny_qwen2.make(other, seed=1)
    with worker_of(make_config(other)) as worker, pytest.raises(WrongFile, match="another SVD basis"):
        worker.prepare_vhack(config_of(model), str(other))


def test_a_job_that_resumes_goes_on_as_if_it_had_not_stopped(worker: Any, model: Path, tmp_path: Path) -> None:
    changes = {"mode": "route", "train": "singular_values"}  # each has something of its own in a checkpoint
    projected_updates(worker, model, ROWS, count=1, **changes)
    worker.save_checkpoint(str(tmp_path), global_step=1)
    worker.actor.train_mini_batch(batch_of(ROWS))
    straight = parameters(worker)
    with worker_of(make_config(model)) as fresh:
        fresh.prepare_vhack(config_of(model, **changes), str(model))
        fresh.load_checkpoint(str(tmp_path))
        fresh.actor.train_mini_batch(batch_of(ROWS))
        resumed = parameters(fresh)
    assert {*torch.load(tmp_path / STATE_FILE)} == {
        *("routed", "singular_values", "directions", "dtype", "basis", "modules")
    }
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_what_was_not_in_a_checkpoint_cannot_go_on_from_it(worker: Any, model: Path, tmp_path: Path) -> None:
    projected_updates(worker, model, ROWS, count=1)
    worker.save_checkpoint(str(tmp_path), global_step=1)
    assert not (tmp_path / STATE_FILE).exists()
    with worker_of(make_config(model)) as fresh:
        fresh.prepare_vhack(config_of(model, mode="route"), str(model))
        with pytest.raises(WrongFile, match="a checkpoint without routed"):
            fresh.load_checkpoint(str(tmp_path))


def test_what_a_checkpoint_set_aside_is_neither_lost_nor_taken_for_something_else(
    worker: Any, model: Path, tmp_path: Path
) -> None:
    worker.prepare_vhack(config_of(model, mode="route"), str(model))
    routing = worker.actor.vhack
    routing.save(tmp_path)
    worker.prepare_vhack(config_of(model), str(model))
    with pytest.raises(WrongFile, match="a checkpoint with routed, which would be lost"):
        worker.actor.vhack.restore(tmp_path)
    turned = {name: v.flip(0) for name, v in routing.loaded.v.items()}
    other = replace(routing, loaded=replace(routing.loaded, v=turned))
    with pytest.raises(WrongFile, match="set aside along other directions"):
        other.restore(tmp_path)
    routing.restore(tmp_path)


def test_fsdp1_is_refused_by_name() -> None:
    sharded = FullyShardedDataParallel.__new__(FullyShardedDataParallel)
    with pytest.raises(ValueError, match=r"vhack.enable: FSDP1 .* set actor_rollout_ref.actor.strategy=fsdp2"):
        prepare(sharded, "model", VhackConfig(file="d"))


def test_the_jobs_section_says_what_is_projected_and_off_means_nothing() -> None:
    section = dict(changed("vhack.file=d", "vhack.k=3").vhack)
    assert settings(section) is None
    assert settings({**section, "enable": True}) == VhackConfig(file="d", k=3)
    assert settings({**section, "enable": True, **dict.fromkeys(PLUGIN_KEYS[1:], 1)}) == VhackConfig(file="d", k=3)
    with pytest.raises(ValueError, match=r"vhack.mod: no such setting; did you mean mode"):
        settings({**section, "enable": True, "mod": "route"})


def test_metrics_of_a_step_are_all_ranks_together_and_the_slowest_ones_seconds() -> None:
    same = {"cin": 0.5, "cout": 0.1, "fired": 1.0}
    metrics, seconds = step_metrics([{**same, "seconds": 1.0}, {**same, "seconds": 2.0}])
    assert metrics == {"vhack/cin": 0.5, "vhack/cout": 0.1, "vhack/fired": 1.0}
    assert seconds == 2.0
    assert step_metrics([{}]) == ({}, 0.0)
