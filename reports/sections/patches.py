"""Points that ran with another configuration than the sweep file's, because the retry policy was allowed to patch it."""

from __future__ import annotations

from collections.abc import Sequence

from reports.markdown import code
from reports.snapshot import AttemptSnapshot, PointSnapshot

MARK = "†"


def is_patched(point: PointSnapshot) -> bool:
    """Whether the attempt that decides ran with changed keys."""
    return bool(point.attempts and point.attempts[-1].patch)


def patch_note(points: Sequence[PointSnapshot]) -> str:
    """The footnote of `MARK`; empty when every point ran as the sweep file says."""
    patched = [point for point in points if is_patched(point)]
    if not patched:
        return ""
    said = "; ".join(f"{code(point.name)} with {_changes(point.attempts[-1])}" for point in patched)
    return (
        f"{MARK} The retry policy changed the configuration before this attempt, as the sweep file allows: {said}. "
        "It is another experiment than the sweep file's: its figures do not compare with the others'."
    )


def _changes(attempt: AttemptSnapshot) -> str:
    return ", ".join(
        f"{code(key)} {code(str(value))}"
        + (f" in place of {code(str(attempt.unpatched[key]))}" if key in attempt.unpatched else "")
        for key, value in attempt.patch.items()
    )
