"""What a trial is told once its point has settled. Pure, but for the figures that `Facts` reads.

=========================  ===========================================================================================
point                      trial
=========================  ===========================================================================================
succeeded                  its values; infeasible where a constraint is broken; failed where an objective is missing
failed for want of memory  infeasible, without values: the ladder has no larger pool, or the host no more memory
failed otherwise           failed: the sampler learns nothing from it
pruned                     pruned, with the last value that was reported
cancelled, skipped         failed
=========================  ===========================================================================================

A point that ran out of memory and succeeded on a larger pool is a succeeded point; the pool is recorded with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.ledger import AttemptRow, PointRow
from orchestrator.model import PointState, Verdict
from orchestrator.search.reading import Facts, NoFigure, read_figure
from orchestrator.search.results import FITS, Told, TrialState
from orchestrator.search.spec import SearchSpec

DID_NOT_FIT = (Verdict.GPU_OOM, Verdict.HOST_OOM)


def is_settled(point: PointRow) -> bool:
    """Nothing more comes of it in this run; a blocked point may still run in another."""
    return point.state.is_terminal and point.state is not PointState.BLOCKED


def of_succeeded(search: SearchSpec, facts: Facts) -> Told:
    """Raises: whatever `Facts.reference` raises beyond `NoFigure`."""
    pool = facts.history[-1].pool
    try:
        values = tuple(
            _finite(name, read_figure(fig, facts)) for name, fig in zip(search.objectives, search.figures, strict=True)
        )
        broken = {
            limit.text: limit.violation(_finite(limit.text, read_figure(limit.figure, facts)))
            for limit in search.limits
        }
    except NoFigure as error:
        return Told(TrialState.FAILED, reason=str(error), pool=pool)
    over = [text for text, violation in broken.items() if violation > 0]
    state = TrialState.INFEASIBLE if over else TrialState.COMPLETE
    reason = f"breaks {', '.join(over)}" if over else None
    return Told(state, values, {FITS: 0.0, **broken}, reason, pool)


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise NoFigure(f"{name} is {value}")
    return value


def of_unsuccessful(
    search: SearchSpec, point: PointRow, history: Sequence[AttemptRow], expected_steps: int | None
) -> Told:
    """Args: expected_steps: of one attempt, for the time that pruning saved."""
    last = history[-1] if history else None
    pool = last.pool if last else None
    if point.state is PointState.PRUNED:
        return Told(TrialState.PRUNED, reason=point.reason, pool=pool, saved_s=_saved(last, expected_steps))
    if point.state is PointState.FAILED and last is not None and last.verdict in DID_NOT_FIT:
        kept = {limit.text: 0.0 for limit in search.limits}  # unknown; Optuna wants every trial to have the same ones
        return Told(TrialState.INFEASIBLE, constraints={FITS: 1.0, **kept}, reason="did not fit into memory", pool=pool)
    return Told(TrialState.FAILED, reason=point.reason or point.state.value, pool=pool)


def _saved(last: AttemptRow | None, expected_steps: int | None) -> float | None:
    """Seconds of the steps that were not run, at the pace of those that were."""
    seen = last.measured if last else None
    if seen is None or seen.step_s is None or expected_steps is None:
        return None
    return max(0, expected_steps - seen.steps) * seen.step_s
