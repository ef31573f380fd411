"""What an attempt was seen to take, from its evidence and its folder: the figures that later decisions go by."""

from __future__ import annotations

from orchestrator.collect.attempt import read_record
from orchestrator.ledger import Measured
from orchestrator.paths import AttemptPaths
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
