"""Key findings of a sweep: every rule's, in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reports.contrasts import Grid
from reports.findings import costs, limits, memory, phases, scores, similarity, solve
from reports.findings.finding import Finding
from reports.resampling import CONFIDENCE, best_coverage
from reports.snapshot import SweepSnapshot

RULES: tuple[Callable[[Grid], list[Finding]], ...] = (
    costs.cost_of_levels,
    costs.small_effects,
    phases.share_of_scores,
    phases.bottleneck,
    solve.scaling,
    solve.largest_modules,
    memory.larger_pool,
    memory.beyond_physics,
    memory.memory_of_levels,
    limits.host_nearly_full,
    limits.card_nearly_full,
    scores.spread_over_numbers,
    scores.spread_over_words,
    scores.knee,
    similarity.preconditioning,
    similarity.projection_kept,
    scores.rows_emitted,
)


def findings(snapshot: SweepSnapshot) -> list[Finding]:
    """Whatever the rules find; equal snapshots give equal findings."""
    grid = Grid.of(snapshot)
    return [finding for rule in RULES for finding in rule(grid)]


def context(snapshot: SweepSnapshot) -> dict[str, Any] | None:
    found, grid = findings(snapshot), Grid.of(snapshot)
    if not found:
        return None
    several, repeats = len(grid.points) > 1 and bool(grid.factors), grid.repeats
    is_few = several and repeats > 1 and best_coverage(repeats) < CONFIDENCE
    return {
        "findings": found,
        "once": several and repeats == 1,
        "few": repeats if is_few else 0,
        "best_coverage": f"{100 * best_coverage(repeats):.0f}%",
    }
