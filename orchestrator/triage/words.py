"""How verdicts and explanations put facts into words."""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Sequence

from orchestrator.triage.completion import missing_npz, missing_steps, unreadable_npz
from orchestrator.triage.evidence import Evidence, Signature

SHORT = 200
"""Characters of a log line in a sentence."""

_ADVICE = re.compile(
    r"(?<=\S) (?:If reserved (?:but unallocated )?memory|See documentation for|Some common causes|There are some potential)"
)


def end(evidence: Evidence) -> str:
    """`exit code 1`, `SIGKILL`, or the scheduler's word."""
    if evidence.signal:
        return signal_name(evidence.signal)
    if evidence.exit_code is not None:
        return f"exit code {evidence.exit_code}"
    return f"status {evidence.scheduler_reason}" if evidence.scheduler_reason else "an unknown exit code"


def signal_name(number: int | None) -> str:
    try:
        return signals.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"


def steps(evidence: Evidence) -> str:
    """`1 of 2 steps`."""
    if evidence.expected_steps:
        return f"{len(evidence.steps)} of {evidence.expected_steps} steps"
    return count(len(evidence.steps), "step")


def work(evidence: Evidence) -> tuple[str, ...]:
    """How far it came: steps, and score files where there are any."""
    facts = [f"steps: {steps(evidence)}"]
    if evidence.npz or evidence.expected_npz:
        valid = len(evidence.npz) - len(unreadable_npz(evidence))
        of = f" of {evidence.expected_npz}" if evidence.expected_npz is not None else ""
        facts.append(f"score files: {valid}{of} valid")
    return tuple(facts)


def lacking(evidence: Evidence) -> list[str]:
    """What stands between the attempt and completion."""
    lacks = []
    if missing := missing_steps(evidence):
        lacks.append(f"step {listed(missing)} of {evidence.expected_steps} not logged")
    if number := missing_npz(evidence):
        lacks.append(f"{count(number, 'score file')} missing")
    if broken := unreadable_npz(evidence):
        lacks.append(f"{count(len(broken), 'score file')} unreadable ({broken[0].file}: {broken[0].error})")
    return lacks


def place(signature: Signature) -> str:
    return f"{signature.file}:{signature.line}: {signature.text}"


def shortened(text: str, most: int = SHORT) -> str:
    """A log line for a sentence, without the advice that libraries put behind what happened."""
    fact = _ADVICE.split(text, maxsplit=1)[0]
    return fact if len(fact) <= most else fact[: most - 1].rstrip() + "…"


def count(number: int, what: str, many: str | None = None) -> str:
    return f"{number} {what if number == 1 else many or what + 's'}"


def listed(numbers: Sequence[int], most: int = 5) -> str:
    shown = ", ".join(map(str, numbers[:most]))
    return shown if len(numbers) <= most else f"{shown}, ... ({len(numbers)} in all)"
