"""The wrapper's sign of life."""

from __future__ import annotations

from orchestrator.paths import AttemptPaths
from trainer_ext.records import Heartbeat


def read_heartbeat(paths: AttemptPaths) -> Heartbeat | None:
    """The latest one; None before the first, and for a file that is none."""
    try:
        return Heartbeat.from_json(paths.heartbeat.read_bytes())
    except (OSError, ValueError):
        return None
