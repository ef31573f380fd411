"""`report.md` of a sweep: a title, a table of what was asked, results, scores, timing, attempts, checks, git, notes.

A section about which the snapshot knows nothing is left out. The same snapshot gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from reports.sections.attempts import attempts
from reports.sections.closing import environment, git, notes
from reports.sections.header import header
from reports.sections.preflight import preflight
from reports.sections.results import results
from reports.sections.scores import scores
from reports.sections.timing import timing
from reports.sections.validation import validation
from reports.snapshot import SweepSnapshot

SECTIONS: tuple[Callable[[SweepSnapshot], str], ...] = (
    header,
    results,
    scores,
    timing,
    attempts,
    preflight,
    validation,
    environment,
    git,
    notes,
)
"""In reading order; each gives Markdown without a blank line at either end, or an empty string."""


def render(snapshot: SweepSnapshot) -> str:
    """The whole report as GitHub-flavoured Markdown."""
    return "\n\n".join(block for block in (section(snapshot) for section in SECTIONS) if block) + "\n"
