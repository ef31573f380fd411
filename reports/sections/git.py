"""The commit that a sweep ran, and whether others can have it."""

from __future__ import annotations

from typing import Any

from reports.markdown import code
from reports.snapshot import GitState, SweepSnapshot

SHORT_HASH = 10


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    state = snapshot.git
    if state is None:
        return None
    remote = code(state.remote or "")
    return {
        "commit": code(state.commit[:SHORT_HASH]),
        "branch": code(state.branch) if state.branch else "detached HEAD",
        "remote": f"{remote} ({code(state.remote_url)})" if remote and state.remote_url else remote,
        "pushed": _yes_no(state.pushed),
        "changes": _changes(state),
    }


def _changes(state: GitState) -> str:
    if state.dirty is None:
        return ""
    return f"Yes, sha256 {code(state.diff_sha256[:SHORT_HASH])}" if state.diff_sha256 else _yes_no(state.dirty)


def _yes_no(value: bool | None) -> str:
    return "" if value is None else "Yes" if value else "No"
