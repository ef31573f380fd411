"""Prompts for RL from reasoning-gym's procedural tasks, as a parquet file in verl's format.

Every row carries its task, the task's config and its index: all that the verifier needs to rebuild the entry it scores
(`trainer_ext.rewards`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer_ext import records
from trainer_ext.procedural import make_dataset

DIFFICULTIES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "chain_sum": {
        "small": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
        "medium": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2},
        "large": {"min_terms": 3, "max_terms": 5, "min_digits": 2, "max_digits": 4},
    },
}
"""Named settings of a task. Any other task, or setting, is reached through explicit config fields."""


def task_config(task: str, difficulty: str | None, fields: Mapping[str, Any], size: int, seed: int) -> dict[str, Any]:
    """Fields of the task's config class: the named difficulty, then explicit fields over it.

    Raises:
        ValueError: this task has no difficulty of that name.
    """
    levels = DIFFICULTIES.get(task, {})
    if difficulty is not None and difficulty not in levels:
        known = f"has {', '.join(levels)}" if levels else "has no named difficulties: set its config fields instead"
        raise ValueError(f"difficulty {difficulty!r}: task {task!r} {known}")
    return {**(levels[difficulty] if difficulty else {}), **fields, "size": size, "seed": seed}


def make_rows(task: str, config: Mapping[str, Any], system: str | None = None) -> list[dict[str, Any]]:
    """One row per entry, in verl's prompt format."""
    config_json = json.dumps(dict(config), sort_keys=True)
    preamble = [{"role": "system", "content": system}] if system else []
    return [
        {
            "data_source": f"reasoning_gym/{task}",
            "prompt": [*preamble, {"role": "user", "content": entry["question"]}],
            "ability": "reasoning",
            "reward_model": {"style": "rule", "ground_truth": str(entry["answer"])},
            "extra_info": {"index": index, "task": task, "task_config": config_json},
        }
        for index, entry in enumerate(make_dataset(task, config))
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a parquet file, whole or not at all; equal rows give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write_atomic(path, buffer.getvalue())
