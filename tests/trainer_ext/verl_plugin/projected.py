"""verl's updates with directions projected out of them, on a model of two layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.trainer_ext.verl_plugin.engine_world import Rows, make_batch, parameters
from trainer_ext.vhack import VhackConfig, extract, save
from trainer_ext.vhack.pairs import generated_pairs, tokenised

FILE = "directions.safetensors"


def write_directions(model: Path) -> Path:
    """Directions of the model in a folder, in a file in that folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    pairs = tokenised(generated_pairs(3, seed=0), AutoTokenizer.from_pretrained(model))
    save(model / FILE, extract(loaded.eval(), pairs, 3), str(model))
    return model / FILE


def config_of(model: Path, **changes: Any) -> VhackConfig:
    return VhackConfig(file=str(model / FILE), **{"k": 2, "drop_bottom_frac": 0.5, **changes})


def batch_of(rows: Sequence[Any], world: int = 1) -> Any:
    old = [torch.full((len(row[2]),), -5.6) for row in rows]
    return make_batch(Rows(list(rows)), old, world=world, micro_batch_size_per_gpu=2)


def projected_updates(
    worker: Any, model: Path, rows: Sequence[Any], world: int = 1, count: int = 2, **changes: Any
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """(weights after some updates of verl's, metrics of all of them but their seconds), with weights as they were loaded."""
    worker.prepare_vhack(config_of(model, **changes), str(model))
    for _ in range(count):
        worker.actor.train_mini_batch(copy.copy(batch_of(rows, world)))
    metrics = worker.take_vhack_metrics()
    del metrics["seconds"]
    return parameters(worker), metrics
