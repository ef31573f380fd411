"""Score files with given statistics: their figures are a report's, their size on disk is next to nothing."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESPONSES = 96
_OVERHEAD = 350
"""Bytes of an array's header and of its two entries in the archive."""


def scores_like(count: int, mean: float, std: float, least: float, most: float) -> NDArray[Any]:
    """float32 [count] with these statistics: both extremes once, and all else at two values around the middle.

    Raises:
        ValueError: the extremes alone are wider than `std` allows.
    """
    rest = count - 2
    middle = (mean * count - least - most) / rest
    squares = std**2 * count - (least - mean) ** 2 - (most - mean) ** 2
    half = rest // 2
    spread = (squares - rest * (middle - mean) ** 2) / (2 * half)
    if spread < 0:
        raise ValueError(f"{least} and {most} among {count} scores have a larger std than {std}")
    values = np.full(count, middle, dtype=np.float64)
    values[2 : 2 + half] += math.sqrt(spread)
    values[2 + half : 2 + 2 * half] -= math.sqrt(spread)
    values[:2] = least, most
    return values.astype(np.float32)


def write_scores(path: Path, values: NDArray[Any], meta: Mapping[str, Any], size: int = 0) -> None:
    """A file of the trainer's form over `RESPONSES` responses.

    Args:
        values: float32 [n], the scores of all response tokens in order.
        size: bytes that the file is to take on disk, by an array that nobody reads; 0: as few as it takes.
    """
    lengths = np.full(RESPONSES, len(values) // RESPONSES, dtype=np.int64)
    lengths[: len(values) % RESPONSES] += 1
    mask = np.arange(lengths.max()) < lengths[:, None]
    scores = np.full(mask.shape, np.nan, dtype=np.float32)
    scores[mask] = values
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        scores=scores,
        mask=mask,
        response_ids=np.zeros(mask.shape, dtype=np.int32),
        lengths=lengths,
        accepted=np.arange(RESPONSES) % 2 == 0,
        advantage=np.where(np.arange(RESPONSES) % 2 == 0, 1.0, -1.0).astype(np.float32),
        uid=np.array([str(row // 16) for row in range(RESPONSES)]),
        meta=np.array(json.dumps(dict(meta))),
    )
    if size:
        rest = io.BytesIO()
        np.save(rest, np.zeros(size - path.stat().st_size - _OVERHEAD, dtype=np.uint8))
        with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
            archive.writestr("padding.npy", rest.getvalue())
