"""Judge the stored attempts of a sweep again, after a pattern or a rule changed.

What was collected stays what it was: outputs may have been cleaned away since, and a file that is gone must not turn a
completed run into a failed one. Only the log is read again, for patterns are about logs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.collect.attempt import read_console
from orchestrator.judging import Judged, judge_attempt
from orchestrator.ledger import AttemptRow, PointRow
from orchestrator.model import AttemptState, PointState, Verdict
from orchestrator.paths import RootPaths
from orchestrator.spec_model import SweepSpec
from orchestrator.store import Store
from orchestrator.triage import evidence_json
from orchestrator.triage.evidence import Evidence
from orchestrator.triage.own_patterns import book_of
from orchestrator.triage.patterns import PatternBook


@dataclass(frozen=True)
class Change:
    """An attempt that is judged differently now."""

    point: PointRow
    attempt: AttemptRow
    """As it was judged before."""
    after: Judged
    settled: PointState | None = None
    """The point's new state, where the verdict decides it."""

    @property
    def verdict_changed(self) -> bool:
        return self.attempt.verdict is not self.after.judgement.verdict

    @property
    def flags(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Codes of anomalies that are new, and of those that are gone."""
        before = {anomaly.code for anomaly in self.attempt.anomalies}
        now = {anomaly.code for anomaly in self.after.anomalies}
        return tuple(sorted(now - before)), tuple(sorted(before - now))


@dataclass(frozen=True)
class Reclassified:
    judged: int
    """How many attempts were judged again."""
    changes: tuple[Change, ...]


def reclassify(store: Store, paths: RootPaths, sweep: str, spec: SweepSpec, *, write: bool) -> Reclassified:
    """Judge every judged attempt of a sweep again, with the patterns of `spec`; what changed is written as new events.

    Args:
        write: False: only say what would change.
    """
    view, book = store.view(sweep), book_of(spec)
    judged, changes = 0, []
    for point in view.points:
        history: list[AttemptRow] = []
        for attempt in view.history(point):
            history.append(attempt)
            if attempt.state is not AttemptState.JUDGED:
                continue
            judged += 1
            change, now = _again(store, paths, point, history, book)
            if change is None:
                continue
            last = attempt.n == view.history(point)[-1].n
            change = replace(change, settled=_settled(change) if last else None)
            if write and not _write(store, change, now):
                continue
            changes.append(change)
            history[-1] = replace(attempt, verdict=change.after.judgement.verdict)
    if write:
        store.put_patterns(sweep, spec.triage.model_dump(mode="json"))  # `rerun` and `resume` judge by them as well
    return Reclassified(judged, tuple(changes))


def _again(
    store: Store, paths: RootPaths, point: PointRow, history: Sequence[AttemptRow], book: PatternBook
) -> tuple[Change | None, Evidence]:
    """The last attempt of `history` judged anew, and on what evidence; None where all is as it was."""
    attempt = history[-1]
    stored = evidence_json.loads(store.evidence(attempt) or "")
    now = _read_again(stored, paths, attempt, book)
    after = judge_attempt(store, history, now)
    judgement = after.judgement
    same = (
        (attempt.verdict, attempt.reason, attempt.facts, attempt.fingerprint, attempt.anomalies)
        == (judgement.verdict, judgement.reason, judgement.evidence, judgement.fingerprint, after.anomalies)
    )  # fmt: skip
    return (None if same else Change(point, attempt, after)), now


def _read_again(stored: Evidence, paths: RootPaths, attempt: AttemptRow, book: PatternBook) -> Evidence:
    """The evidence with the log's signatures of today; as it was where the log is gone or was cut."""
    console = read_console(paths.attempt(attempt.sweep, attempt.point, attempt.n).console, book)
    if console.lines < stored.log_lines or not console.lines:
        return stored
    return replace(stored, signatures=console.signatures)


def _settled(change: Change) -> PointState | None:
    now = change.after.judgement.verdict
    if change.point.state is PointState.FAILED and now is Verdict.COMPLETED:
        return PointState.SUCCEEDED
    if change.point.state is PointState.SUCCEEDED and now is not Verdict.COMPLETED:
        return PointState.FAILED
    return None


def _write(store: Store, change: Change, evidence: Evidence) -> bool:
    old, new = change.attempt.verdict, change.after.judgement.verdict
    changed = f"{old.value if old else None} -> {new.value}" if change.verdict_changed else f"still {new.value}"
    detail = f"judged again: {changed}: {change.after.judgement.reason}; before: {change.attempt.reason}"
    values = {**change.after.columns(), "evidence": evidence_json.dumps(evidence)}
    if not store.rejudge(change.attempt, detail, **values):
        return False
    if change.settled is not None:
        store.move_point(change.point, change.settled, f"judged again: {change.after.judgement.reason}")
    return True
