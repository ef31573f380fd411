"""Statistics of NPZ files of influence scores, ours and other people's, in float64 over valid positions.

Files come from jobs that were killed while they wrote, and from strangers: nothing is unpickled, sizes are checked before
memory is taken, and arrays are read in blocks of rows. An unreadable file is a fact, not an exception.
"""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.collect.npz_array import ArrayReader, BadArray, read_to_end
from orchestrator.collect.npz_meta import read_meta
from orchestrator.collect.score_bins import ScoreBins
from orchestrator.triage.evidence import NpzFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCORES = ("scores", "influence", "token_influence")
MASKS = ("mask", "response_mask", "valid", "attention_mask")
_LENGTHS = "lengths"
_OFFSETS = "row_offsets"
_BLOCK = 1 << 20
"""Positions that are held in memory at once."""

_STEP = re.compile(r"step[_-]?0*(\d{1,9})", re.IGNORECASE)
_NUMBER = re.compile(r"0*(\d{1,9})\D*$")


def step_of(name: str) -> int | None:
    """The step in a file's name: `step_000002.npz`, `influence-step2-rank0.npz`, or else its last number."""
    stem = name.rsplit("/", 1)[-1].removesuffix(".npz")
    found = _STEP.search(stem) or _NUMBER.search(stem)
    return int(found[1]) if found else None


def read_npz(path: Path, name: str) -> NpzFacts:
    """Facts of one file; `name` is how they call it, relative to the attempt folder.

    The scores are the first float array named `scores`, `influence` or `token_influence`: [responses, tokens], or flat with
    `row_offsets`. Valid are the positions of a boolean or 0/1 mask of the same shape, or the first `lengths[r]` of row r,
    or all of a flat array with offsets; without any of these the positions that are not NaN. Infinities in valid positions
    count as NaN, and the statistics leave both out.
    """
    step = step_of(name)
    try:
        with zipfile.ZipFile(path) as archive:
            summary, responses = _summarise(archive)
            _verify_checksums(archive)
            meta = read_meta(archive)
        size = path.stat().st_size
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        return NpzFacts(name, step, error=f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    return NpzFacts(
        file=name,
        step=step,
        responses=responses,
        valid=summary.valid,
        mean=summary.mean if summary.finite else None,
        std=math.sqrt(summary.squares / summary.finite) if summary.finite else None,
        min=summary.min if summary.finite else None,
        max=summary.max if summary.finite else None,
        nan_in_valid=summary.valid - summary.finite,
        histogram=summary.bins.histogram(),
        bytes=size,
        dims=meta.dims,
        similarity=meta.similarity,
    )


@dataclass
class _Summary:
    """Running statistics; blocks are merged pairwise, which loses nothing to cancellation."""

    valid: int = 0
    finite: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of squared deviations from the mean."""
    min: float = math.inf
    max: float = -math.inf
    bins: ScoreBins = field(default_factory=ScoreBins)

    def add(self, values: NDArray[Any]) -> None:
        """`values`: float64 [n], what stands in valid positions."""
        import numpy as np

        self.valid += values.size
        values = values[np.isfinite(values)]
        if not values.size:
            return
        mean, count = float(values.mean()), self.finite + values.size
        difference = mean - self.mean
        self.squares += float(np.square(values - mean).sum()) + difference**2 * self.finite * values.size / count
        self.mean += difference * values.size / count
        self.finite = count
        self.min, self.max = min(self.min, float(values.min())), max(self.max, float(values.max()))
        self.bins.add(values)


def _summarise(archive: zipfile.ZipFile) -> tuple[_Summary, int]:
    """Statistics and number of responses."""
    import numpy as np

    with ExitStack() as stack:
        scores = _scores(archive, stack)
        offsets = _small(archive, _OFFSETS, stack) if len(scores.shape) == 1 else None
        mask = _mask(archive, scores.shape, stack)
        lengths = _small(archive, _LENGTHS, stack) if mask is None and len(scores.shape) == 2 else None
        summary = _Summary()
        with np.errstate(all="ignore"):  # strangers' files hold infinities, and numbers whose squares are infinite
            for values, valid in _blocks(scores, mask, lengths, everything=offsets is not None):
                summary.add(values[valid])
    if len(scores.shape) == 1:
        return summary, 1 if offsets is None else max(len(offsets) - 1, 0)
    return summary, scores.rows


def _blocks(
    scores: ArrayReader, mask: ArrayReader | None, lengths: NDArray[Any] | None, *, everything: bool
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """(values float64 [n, row], valid bool [n, row]) of some rows at a time."""
    import numpy as np

    rows = max(1, _BLOCK // max(scores.row_size, 1))
    for start in range(0, scores.rows, rows):
        values = scores.read_rows(min(rows, scores.rows - start)).astype(np.float64)
        if mask is not None:
            valid = mask.read_rows(len(values)).astype(np.bool_)
        elif lengths is not None and lengths.shape == (scores.rows,):
            valid = np.arange(scores.row_size) < lengths[start : start + len(values), None]
        else:
            valid = np.ones(values.shape, np.bool_) if everything else ~np.isnan(values)
        yield values, valid


def _scores(archive: zipfile.ZipFile, stack: ExitStack) -> ArrayReader:
    for name in SCORES:
        reader = _open(archive, name, stack)
        if reader is not None and reader.dtype.kind == "f" and reader.shape:
            return reader
    names = ", ".join(sorted(name.removesuffix(".npy") for name in archive.namelist())) or "nothing"
    raise BadArray(f"no float array named {', '.join(SCORES)}; the file holds {names}")


def _mask(archive: zipfile.ZipFile, shape: tuple[int, ...], stack: ExitStack) -> ArrayReader | None:
    readers = (_open(archive, name, stack) for name in MASKS)
    return next((r for r in readers if r is not None and r.shape == shape and r.dtype.kind in "biuf"), None)


def _small(archive: zipfile.ZipFile, name: str, stack: ExitStack) -> NDArray[Any] | None:
    """A whole array of one integer a row."""
    reader = _open(archive, name, stack)
    if reader is None or reader.dtype.kind not in "iu" or len(reader.shape) != 1:
        return None
    return reader.read_rows(reader.rows)


def _open(archive: zipfile.ZipFile, name: str, stack: ExitStack) -> ArrayReader | None:
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        return None
    return ArrayReader(stack.enter_context(archive.open(info)), info.file_size, name)


def _verify_checksums(archive: zipfile.ZipFile) -> None:
    """Read every array to its end, so that its checksum is compared."""
    for info in archive.infolist():
        with archive.open(info) as file:
            read_to_end(file)
