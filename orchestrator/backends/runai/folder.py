"""What an attempt folder shows of the attempt, as far as the backend needs it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from orchestrator.backends.base import JobRef
from orchestrator.backends.runai.observation import Folder
from orchestrator.errors import Unobservable
from orchestrator.paths import AttemptPaths
from trainer_ext.records import Heartbeat, Outcome

_Record = TypeVar("_Record", Heartbeat, Outcome)


def look_into(job: JobRef) -> Folder:
    """The folder now. A record of another attempt is none, and so is one that is not whole.

    Raises:
        Unobservable: the storage does not answer.
    """
    paths = AttemptPaths(job.attempt_dir)
    try:
        outcome, heartbeat = _read(Outcome, paths.outcome), _read(Heartbeat, paths.heartbeat)
        claimed = paths.claim.exists()
    except OSError as error:
        raise Unobservable(f"cannot look into {job.attempt_dir}: {error.strerror or error}") from error
    return Folder(
        claimed=claimed,
        outcome=outcome if outcome is not None and outcome.token == job.token else None,
        heartbeat_at=heartbeat.time if heartbeat is not None else None,
    )


def _read(kind: type[_Record], path: Path) -> _Record | None:
    try:
        return kind.from_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
