"""What an attempt was seen to take, from its evidence and its folder: the figures that later decisions go by."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from orchestrator.collect.attempt import read_record
from orchestrator.ledger import AttemptRow, Measured
from orchestrator.paths import AttemptPaths
from orchestrator.triage import evidence_json
from orchestrator.triage.anomalies import step_seconds
from orchestrator.triage.evidence import Evidence
from trainer_ext.records import Checkpoint, Claim, Outcome


def measure(evidence: Evidence, folder: AttemptPaths) -> Measured:
    """Files may be missing or half-written, as in any attempt; what they would have said is then unknown."""
    claim = read_record(Claim, folder.claim)
    outcome = read_record(Outcome, folder.outcome)
    checkpoint = read_record(Checkpoint, folder.checkpoint)
    by_wrapper = outcome.step_s if outcome else None
    return Measured(
        steps=max(evidence.steps, default=0),
        checkpoint=(checkpoint.saved_after or checkpoint.resumed_after) if checkpoint else 0,
        step_s=step_seconds(evidence) or by_wrapper,
        start_s=outcome.first_step_s if outcome else None,
        gpu_bytes=evidence.gpu_peak_bytes,
        host_bytes=evidence.host_peak_bytes,
        node=(claim.node or claim.host) if claim else None,
    )


def collected_columns(attempt: AttemptRow, evidence: Evidence, folder: AttemptPaths) -> dict[str, Any]:
    """What the store keeps of an attempt once its evidence is collected."""
    return {
        "evidence": evidence_json.dumps(evidence),
        "exit_code": evidence.exit_code,
        "signal": evidence.signal,
        "started_at": evidence.started_at or attempt.started_at,
        "ended_at": evidence.ended_at or attempt.ended_at,
        "measured": asdict(measure(evidence, folder)),
    }
