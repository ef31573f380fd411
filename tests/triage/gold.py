"""The gold corpus: logs with what a colleague would say of them, and what the code says."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from orchestrator.collect.foreign import collect_folder
from orchestrator.model import Verdict
from orchestrator.triage.anomalies import find_anomalies
from orchestrator.triage.evidence import Evidence
from orchestrator.triage.verdict import Judgement, judge

CORPUS = Path(__file__).parent / "corpus"
DEFAULT_END: Mapping[str, Any] = {"exit_code": 1}


@dataclass(frozen=True)
class Case:
    """One entry of `corpus/index.yaml`; its head says what the keys are."""

    name: str
    verdict: Verdict
    source: str
    signature: str | None = None
    anomalies: tuple[str, ...] = ()
    end: Mapping[str, Any] = field(default_factory=dict)
    card_mib: int | None = None
    batch: int = 1
    known: str | None = None
    """What the code is known to say instead, and why that is left so."""

    @property
    def path(self) -> Path:
        folder = CORPUS / self.name
        return folder if folder.is_dir() else CORPUS / f"{self.name}.log"

    def evidence(self) -> Evidence:
        """What `collect` finds; a log alone is joined by what the node knew of its end."""
        evidence = collect_folder(self.path, card_mib=self.card_mib)
        return evidence if self.path.is_dir() else self.with_end(evidence)

    def with_end(self, evidence: Evidence) -> Evidence:
        """The evidence of a log joined by what the node knew of the end."""
        return replace(evidence, **{"outcome_seen": True, **DEFAULT_END, **self.end})


@dataclass(frozen=True)
class Judged:
    case: Case
    judgement: Judgement
    signature: str | None
    """Of the line that decided."""
    anomalies: tuple[str, ...]

    @property
    def right(self) -> bool:
        case = self.case
        return (case.verdict, case.signature, case.anomalies) == (
            self.judgement.verdict,
            self.signature,
            self.anomalies,
        )


@functools.cache
def cases() -> tuple[Case, ...]:
    entries = yaml.safe_load((CORPUS / "index.yaml").read_text())
    return tuple(
        Case(
            **{
                **entry,
                "verdict": Verdict(entry["verdict"]),
                "anomalies": tuple(entry.get("anomalies", ())),
            }
        )
        for entry in entries
    )


@functools.cache
def _judged(name: str) -> Judged:
    case = next(case for case in cases() if case.name == name)
    evidence = case.evidence()
    judgement = judge(evidence)
    found = tuple(anomaly.code for anomaly in find_anomalies(evidence, judgement.verdict))
    return Judged(case, judgement, judgement.cause.code if judgement.cause else None, found)


def judged(case: Case) -> Judged:
    """What the code says, asked once."""
    return _judged(case.name)
