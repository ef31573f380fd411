"""When a checkpoint counts, and what it holds beside the weights: the records of every step up to its own.

verl writes a step's checkpoint before it logs the step, and deletes the one before as soon as the weights are written. Killed
in between, it would leave a step that nobody ever logs, or no whole checkpoint at all. So here a checkpoint counts only when it
is *confirmed*: after the step's metrics are logged, by the file `confirmed` in its folder; and older ones go after that. A step
whose checkpoint was not confirmed is done again.

The records (metrics and score files) travel with the weights. Restored into the attempt folder of the job that resumes, they
make that folder whole: what was computed from these weights, and nothing of an attempt that went another way. They are hard
links where the file system can, so they cost no space.

    global_step_2/
        begun               first of all: this module's to remove, as a checkpoint made elsewhere is not
        actor/, data.pt     the trainer's own
        records/            metrics.jsonl and influence/step_*.npz of steps 1 and 2
        confirmed           last of all

Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer_ext import records

FOLDER = "global_step_{}"
"""Name of step n's checkpoint below the folder of all; verl's."""
BEGUN = "begun"
CONFIRMED = "confirmed"
REMOVED = "removed_"
RECORDS = "records"


def folder_of(root: Path, step: int) -> Path:
    return root / FOLDER.format(step)


def step_of(folder: Path) -> int | None:
    """The step of a checkpoint's folder; None where it is no such folder."""
    prefix, _, number = folder.name.rpartition("_")
    return int(number) if f"{prefix}_{{}}" == FOLDER and number.isdecimal() else None


def newest(root: Path) -> Path | None:
    """The confirmed checkpoint of the latest step, or None."""
    return next(iter(_confirmed(root)), None)


def begin(folder: Path) -> None:
    """To be called before a checkpoint is written: make its folder; whatever lies there already does not count any more."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BEGUN).touch()
    (folder / CONFIRMED).unlink(missing_ok=True)


def confirm(folder: Path, attempt: Path, *, keep: int | None = None) -> None:
    """Declare a checkpoint whole: add the records of its steps, bring all to disk, mark it, note it in the attempt folder,
    remove older ones.

    Args:
        folder: the checkpoint's, written by the trainer.
        attempt: where the job writes its records.
        keep: how many checkpoints to keep, those of the latest steps, and this one in any case: a job that went back to an
            earlier step must not lose what it has just saved; None: all.

    Raises:
        ValueError: `folder` is not named like a checkpoint.
        OSError: the disk is full, or not writable.
    """
    step = step_of(folder)
    if step is None:
        raise ValueError(f"{folder} is no checkpoint: its name must be like {FOLDER.format(1)}")
    place = folder / RECORDS
    shutil.rmtree(place, ignore_errors=True)  # of an attempt that died before it confirmed this step
    (place / records.INFLUENCE_DIR).mkdir(parents=True)
    for name in _score_files(attempt, step):
        _link(attempt / name, place / name)
    rows = [json.dumps(row) + "\n" for row in _rows(attempt / records.METRICS) if row["step"] <= step]
    (place / records.METRICS).write_text("".join(rows))
    for file in folder.rglob("*"):
        _flush(file)
    records.write_atomic(folder / CONFIRMED, "")
    _note(attempt, replace(_noted(attempt), saved_after=step))
    if keep is not None:
        _prune(folder.parent, max(keep, 1), spare=folder)


def restore(folder: Path, attempt: Path) -> list[dict[str, Any]]:
    """Put a checkpoint's score files into the attempt folder of a job that resumes from it, and note there that it does.

    Returns:
        the metrics of its steps, `{"step": n, "data": {...}}` each, for the trainer to log again: its logger has the file open.
        Empty for a checkpoint that was made elsewhere and holds no records.
    """
    place, step = folder / RECORDS, step_of(folder) or 0
    (attempt / records.INFLUENCE_DIR).mkdir(parents=True, exist_ok=True)
    for name in _score_files(place, step):
        _link(place / name, attempt / name)
    _note(attempt, records.Checkpoint(resumed_after=step))
    return list(_rows(place / records.METRICS))


def discard(root: Path) -> None:
    """Remove all checkpoints that were begun here: the run is over, and nobody asked to keep any."""
    _prune(root, 0)


def _noted(attempt: Path) -> records.Checkpoint:
    path = attempt / records.CHECKPOINT
    return records.Checkpoint.from_json(path.read_bytes()) if path.exists() else records.Checkpoint()


def _note(attempt: Path, note: records.Checkpoint) -> None:
    records.write_atomic(attempt / records.CHECKPOINT, note.to_json())


def _confirmed(root: Path) -> list[Path]:
    """Latest step first."""
    folders = [folder for folder in root.glob(FOLDER.format("*")) if step_of(folder) is not None]
    return sorted((f for f in folders if (f / CONFIRMED).exists()), key=lambda f: step_of(f) or 0, reverse=True)


def _prune(root: Path, keep: int, spare: Path | None = None) -> None:
    """Remove all but the newest confirmed checkpoints and `spare`, half-written ones of dead attempts included."""
    doomed = {folder for folder in root.glob(FOLDER.format("*")) if (folder / BEGUN).exists()}
    for folder in doomed.difference(_confirmed(root)[:keep], [spare]):
        elsewhere = folder.with_name(f"{REMOVED}{folder.name}")  # so that no half of it is ever taken for a whole
        shutil.rmtree(elsewhere, ignore_errors=True)
        folder.rename(elsewhere)
    for folder in root.glob(f"{REMOVED}*"):  # one that an earlier attempt did not come to the end of, too
        shutil.rmtree(folder, ignore_errors=True)


def _score_files(folder: Path, last: int) -> Iterator[str]:
    """Relative names of the score files of steps 1 to `last` that are there."""
    names = (f"{records.INFLUENCE_DIR}/{records.npz_name(step)}" for step in range(1, last + 1))
    return (name for name in names if (folder / name).exists())


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file; none where the job keeps no such file."""
    if path.exists():
        yield from map(json.loads, path.read_text().splitlines())


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, or a copy where the file system cannot. Score files are replaced, never changed."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _flush(path: Path) -> None:
    """What was written to `path` is on the disk afterwards: a node that dies must not take it along."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
