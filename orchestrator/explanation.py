"""Why a point came to where it is: its attempts with their verdicts, the evidence of one of them, what followed, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.collect.attempt import collect_attempt
from orchestrator.errors import UsageError
from orchestrator.ledger import AttemptRow, EventRow, PointRow
from orchestrator.model import AttemptState, PointState, Verdict
from orchestrator.paths import RootPaths
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.triage import evidence_json
from orchestrator.triage.evidence import Evidence
from orchestrator.triage.explain import Fact, explain
from orchestrator.triage.own_patterns import book_of
from orchestrator.triage.verdict import Judgement, judge


@dataclass(frozen=True)
class Tried:
    """One attempt with what was decided after it."""

    attempt: AttemptRow
    decision: str | None
    """Why it was tried again, or why not."""


@dataclass(frozen=True)
class Explanation:
    point: PointRow
    tried: tuple[Tried, ...]
    """Ascending."""
    shown: AttemptRow | None
    """The attempt that is explained; None: nothing ran yet."""
    facts: tuple[Fact, ...]
    judgement: Judgement | None
    """What this program says of the evidence now; it may differ from what was said then."""
    advice: str
    folder: Path | None = None
    """Of the attempt that is explained."""

    @property
    def outdated(self) -> bool:
        """This program, or the sweep's patterns, would judge otherwise today."""
        if self.shown is None or self.judgement is None:
            return False
        return self.shown.state is AttemptState.JUDGED and self.judgement.verdict is not self.shown.verdict


def explain_point(store: Store, paths: RootPaths, point: PointRow, number: int | None = None) -> Explanation:
    """Explain the newest attempt of a point, or attempt `number`.

    Raises:
        UsageError: there is no such attempt.
    """
    history = store.view(point.sweep).history(point)
    known = [attempt.n for attempt in history]
    if number is not None and number not in known:
        raise UsageError(f"{point.name} has attempts {', '.join(map(str, known)) or '(none yet)'}, not {number}")
    shown = next((attempt for attempt in reversed(history) if number in (None, attempt.n)), None)
    evidence = _evidence(store, paths, shown) if shown else None
    decisions = _decisions(store.events(point.sweep), point)
    return Explanation(
        point=point,
        tried=tuple(Tried(attempt, decisions.get(attempt.n)) for attempt in history),
        shown=shown,
        facts=explain(evidence) if evidence else (),
        judgement=judge(evidence) if evidence else None,
        advice=_advice(point, history),
        folder=paths.attempt(point.sweep, point.id, shown.n).dir if shown else None,
    )


def _evidence(store: Store, paths: RootPaths, attempt: AttemptRow) -> Evidence:
    """What was collected, or for an attempt that is not over what is there by now."""
    stored = store.evidence(attempt)
    if stored:
        return evidence_json.loads(stored)
    book = book_of(SweepSpec.model_validate(store.sweep(attempt.sweep).spec))
    folder = paths.attempt(attempt.sweep, attempt.point, attempt.n).dir
    return collect_attempt(folder, backend_ended=not attempt.state.is_live, gone=attempt.gone, book=book)


def _decisions(events: Sequence[EventRow], point: PointRow) -> dict[int, str]:
    """Attempt -> what the point's next change of state said."""
    found: dict[int, str] = {}
    last: int | None = None
    for event in events:
        if event.point != point.id:
            continue
        if event.attempt is not None:
            last = event.attempt if event.to_state == AttemptState.JUDGED.value else last
        elif last is not None and event.to_state and last not in found:
            found[last] = f"{event.to_state}: {event.detail}" if event.detail else event.to_state
    return found


_NEXT: Mapping[Verdict, str] = {
    Verdict.GPU_OOM: "take a pool with more memory into the ladder, or lower the batch, the response length or 1/factor",
    Verdict.HOST_OOM: "raise resources.host_memory or choose nodes with more in the sweep file, sweep again, then `rerun`",
    Verdict.TIME_LIMIT: "raise resources.time in the sweep file, sweep again, then `rerun`; or save checkpoints to go on from",
    Verdict.CONFIG_ERROR: "mend the sweep file and sweep again, or mend what it names and `rerun`",
    Verdict.CODE_ERROR: "mend the code, then `rerun`",
    Verdict.HANG: "look at stacks.txt in its folder, taken before the stop; then `rerun`",
    Verdict.MISSING_OUTPUT: "see why the job ended without its files; then `rerun`",
    Verdict.NODE_FAILURE: "`rerun`; if it happens again on the same node, tell whoever runs the cluster",
    Verdict.UNKNOWN: "read `logs`; a line that tells the cause can become a pattern (docs/triage.md), then `reclassify`",
}


def _advice(point: PointRow, history: Sequence[AttemptRow]) -> str:
    if point.state is PointState.ACTIVE:
        return "nothing: it is being worked on"
    if point.state is PointState.SUCCEEDED:
        return "nothing"
    if point.state is PointState.BLOCKED:
        return "raise the budget that stopped the sweep, or mend the error and `rerun` the points that failed; then sweep again"
    if not history or history[-1].verdict is None:
        return "nothing: it has not been tried yet" if not point.state.is_terminal else "`rerun` tries it again"
    return _NEXT.get(history[-1].verdict, "`rerun` tries it again")
