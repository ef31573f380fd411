"""Writes one step's influence scores as an NPZ file of the attempt folder (schema: `trainer_ext.records`).

numpy only, so that the trainer's driver, the synthetic job and tests share it. Responses have different lengths; the file
holds them right-padded. The mask comes from the caller and is never derived from NaN: a NaN where the mask is true is a
solver's failure, and hiding it would rob the orchestrator of the evidence.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer_ext import records


@dataclass(frozen=True)
class ScoredResponse:
    """One response of a training step.

    `token_ids` int [n], `scores` float [n], `mask` bool [n]: true where a score was due, that is where the token was selected
    and its group had accepted as well as rejected responses. Scores outside the mask are ignored.
    """

    token_ids: NDArray[Any]
    scores: NDArray[Any]
    mask: NDArray[Any]
    accepted: bool
    advantage: float
    uid: str


def attempt_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The attempt folder; the working directory for a run without an orchestrator."""
    return Path(environ.get(records.ENV_ATTEMPT_DIR, "."))


def output_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the score files go."""
    return attempt_dir(environ) / records.INFLUENCE_DIR


def pack(responses: Sequence[ScoredResponse], meta: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Right-pad responses into the arrays named by `records.NPZ_KEYS`.

    Raises:
        ValueError: a response whose token_ids, scores and mask differ in length.
    """
    lengths = np.array([len(response.token_ids) for response in responses], dtype=np.int64)
    shape = (len(responses), int(lengths.max(initial=0)))
    scores = np.full(shape, np.nan, dtype=np.float32)
    mask = np.zeros(shape, dtype=np.bool_)
    token_ids = np.zeros(shape, dtype=np.int32)
    for row, (response, length) in enumerate(zip(responses, lengths, strict=True)):
        if not len(response.scores) == len(response.mask) == length:
            raise ValueError(
                f"response {row}: {length} tokens, {len(response.scores)} scores and {len(response.mask)} mask entries"
            )
        valid = np.asarray(response.mask, dtype=np.bool_)
        token_ids[row, :length] = response.token_ids
        mask[row, :length] = valid
        scores[row, :length][valid] = np.asarray(response.scores, dtype=np.float32)[valid]
    return {
        "scores": scores,
        "mask": mask,
        "response_ids": token_ids,
        "lengths": lengths,
        "accepted": np.array([response.accepted for response in responses], dtype=np.bool_),
        "advantage": np.array([response.advantage for response in responses], dtype=np.float32),
        "uid": np.array([response.uid for response in responses], dtype=np.str_),
        "meta": np.array(json.dumps(dict(meta), sort_keys=True)),
    }


def write_step(folder: Path, step: int, responses: Sequence[ScoredResponse], meta: Mapping[str, Any]) -> Path:
    """Write `step_%06d.npz` into `folder` as a whole or not at all; `meta` gains `step` and `schema`."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **pack(responses, {**meta, "step": step, "schema": records.SCHEMA_VERSION}))  # type: ignore[arg-type]
    path = folder / records.npz_name(step)
    records.write_atomic(path, buffer.getvalue())
    return path
