"""One attempt's verdict and anomalies from what is stored of it, its point's earlier attempts and its sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.ledger import AttemptRow
from orchestrator.model import Anomaly, PointState
from orchestrator.placement import settings
from orchestrator.store import Store
from orchestrator.triage import evidence_json
from orchestrator.triage.anomalies import Earlier, Lineage, find_anomalies, step_seconds
from orchestrator.triage.evidence import Evidence
from orchestrator.triage.verdict import Judgement, judge


@dataclass(frozen=True)
class Judged:
    judgement: Judgement
    anomalies: tuple[Anomaly, ...]

    @property
    def sentence(self) -> str:
        """For the event."""
        return f"{self.judgement.verdict}: {self.judgement.reason}"

    def columns(self) -> dict[str, Any]:
        """As the store keeps it."""
        return {
            "verdict": self.judgement.verdict.value,
            "reason": self.judgement.reason,
            "facts": list(self.judgement.evidence),
            "fingerprint": self.judgement.fingerprint,
            "anomalies": [{"code": anomaly.code, "message": anomaly.message} for anomaly in self.anomalies],
        }


def judge_attempt(store: Store, history: Sequence[AttemptRow], evidence: Evidence | None = None) -> Judged:
    """Judge the last attempt of `history`, the attempts of one point in order.

    Args:
        evidence: what it left behind; None: what the store keeps.
    """
    attempt = history[-1]
    if evidence is None:
        evidence = evidence_json.loads(store.evidence(attempt) or "")
    judgement = judge(evidence)
    lineage = Lineage(
        earlier=tuple(Earlier(row.verdict, row.pool) for row in history[:-1] if row.verdict is not None),
        pool=attempt.pool,
        peer_step_seconds=tuple(_peers(store, attempt)) if step_seconds(evidence) is not None else (),
    )
    return Judged(judgement, find_anomalies(evidence, judgement.verdict, lineage))


def _peers(store: Store, attempt: AttemptRow) -> list[float]:
    """Seconds a step of points that differ in replicate axes alone and succeeded on the same pool."""
    view = store.view(attempt.sweep)
    mine = next(point for point in view.points if point.id == attempt.point)
    like = [
        view.history(point)[-1]
        for point in view.points
        if point.id != mine.id and point.state is PointState.SUCCEEDED and settings(point) == settings(mine)
    ]
    return [row.measured.step_s for row in like if row.pool == attempt.pool and row.measured and row.measured.step_s]
