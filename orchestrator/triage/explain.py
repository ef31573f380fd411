"""The evidence behind a verdict as a small tree: what decided, what else the log shows, what was left, how it ended.

Only what says something is in it, so that it fits a page. Nothing here judges; `verdict` has done that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.model import Verdict
from orchestrator.triage import words
from orchestrator.triage.completion import fatal, is_complete, reports_success
from orchestrator.triage.evidence import GIB, Evidence, Role, Signature, in_time
from orchestrator.triage.verdict import judge

LINE = 140
"""Characters of a log line that are shown."""
MOST_GROUPS = 6
"""Kinds of lines that are listed beside the deciding one."""

_ROLE = {
    Role.ROOT: "could have been a cause",
    Role.CASCADE: "followed from something else",
    Role.CONFIRMATION: "says how it ended, not why",
}


@dataclass(frozen=True)
class Fact:
    """A line of the page: `label: text`, and what belongs to it."""

    label: str
    text: str
    below: tuple[Fact, ...] = ()


def explain(evidence: Evidence) -> tuple[Fact, ...]:
    """What the verdict over this evidence stands on, the most telling first."""
    judgement = judge(evidence)
    facts = [
        *_deciding(evidence, judgement.cause),
        *_rest_of_the_log(evidence, judgement.cause),
        *_work(evidence, judgement.verdict),
        *_end(evidence),
        *_memory(evidence),
        *_life(evidence),
    ]
    return tuple(facts)


def _deciding(evidence: Evidence, cause: Signature | None) -> Iterator[Fact]:
    if cause is None:
        return
    roots = len(fatal(evidence, Role.ROOT))
    which = "the only cause that the log names"
    if cause.role is Role.CASCADE:
        which = "follows from something that the log does not show"
    elif cause.role is Role.ROOT and roots > 1:
        which = f"the earliest of {roots} that count" if cause.names_a_cause else f"the first of {roots}"
    below = [Fact("log", words.shortened(cause.text, LINE)), Fact("at", _place(cause))]
    below += [Fact("in", cause.where)] if cause.where else []
    yield Fact("decided by", f"{cause.code}, {which}", tuple(below))


def _rest_of_the_log(evidence: Evidence, cause: Signature | None) -> Iterator[Fact]:
    """All other signatures, one line a kind."""
    groups: dict[tuple[str, bool], list[Signature]] = {}
    for signature in in_time(evidence.signatures):
        if signature != cause:
            groups.setdefault((signature.code, signature in fatal(evidence, signature.role)), []).append(signature)
    below = [_group(found, counts) for (_, counts), found in groups.items()]
    if len(below) > MOST_GROUPS:
        below = [*below[:MOST_GROUPS], Fact("and", words.count(len(below) - MOST_GROUPS, "more kind"))]
    said = [f"{evidence.log_lines:,} lines"] if evidence.log_lines else []
    said += ["cut in the middle of the last one"] if evidence.log_truncated else []
    said += ["nothing else in them is known to mean a failure"] if evidence.log_lines and not below else []
    if said or below:
        yield Fact("the log", ", ".join(said), tuple(below))


def _group(found: Sequence[Signature], counts: bool) -> Fact:
    first = found[0]
    role = _ROLE[first.role] if counts else "the job got over it"
    ranks = sorted({signature.rank for signature in found if signature.rank is not None})
    by = f", rank{'s' * (len(ranks) > 1)} {words.listed(ranks, 8)}" if ranks else ""
    label = first.code if len(found) == 1 else f"{len(found)} × {first.code}"
    return Fact(label, f"{role}{by}; first at {_place(first)}", (Fact("log", words.shortened(first.text, LINE)),))


def _work(evidence: Evidence, verdict: Verdict) -> Iterator[Fact]:
    done = "; ".join(words.work(evidence))
    resumed = f"; steps up to {evidence.resumed_after} from a checkpoint" if evidence.resumed_after else ""
    lacks = words.lacking(evidence)
    below = tuple(Fact("lacks", lack) for lack in lacks)
    if not below and verdict is not Verdict.COMPLETED and evidence.ended and not is_complete(evidence):
        below = (Fact("lacks", "nobody knows how many steps were meant, and the end was no success"),)
    yield Fact("work", done + resumed, below)


def _end(evidence: Evidence) -> Iterator[Fact]:
    if not evidence.ended:
        yield Fact("end", "not yet")
        return
    said = [words.end(evidence)]
    said += [f"in phase {evidence.phase}"] if evidence.phase else []
    said += [f"scheduler says {evidence.scheduler_reason}"] if evidence.scheduler_reason else []
    said += [f"stopped: {evidence.stop_reason}"] if evidence.stop_reason else []
    said += ["cancelled on request"] if evidence.cancel_requested else []
    said += ["the job is gone and left no outcome"] if evidence.gone and not evidence.outcome_seen else []
    said += [f"could not start: {evidence.start_error}"] if evidence.start_error else []
    below = () if reports_success(evidence) else _no_proof(evidence)
    yield Fact("end", ", ".join(said), below)


def _no_proof(evidence: Evidence) -> tuple[Fact, ...]:
    if evidence.exit_code in (137, None) and evidence.signal in (9, None) and not evidence.oom_kills:
        if evidence.signal == 9 or evidence.exit_code == 137:
            return (Fact("note", "SIGKILL alone is no proof of too little memory: the kernel counted no kill"),)
        return ()
    if evidence.exit_code == 1:
        return (Fact("note", "exit code 1 names no cause"),)
    return ()


def _memory(evidence: Evidence) -> Iterator[Fact]:
    said = []
    if evidence.gpu_peak_bytes is not None:
        said.append(f"GPU {_of(evidence.gpu_peak_bytes, evidence.card_bytes)} at most (NVML)")
    elif evidence.card_bytes is not None:
        said.append(f"card of {evidence.card_bytes / GIB:.1f} GiB, its use not sampled")
    if evidence.host_peak_bytes is not None:
        said.append(f"host {_of(evidence.host_peak_bytes, evidence.host_limit_bytes)} at most")
    if evidence.oom_kills is not None:
        said.append(f"the kernel killed {words.count(evidence.oom_kills, 'process', 'processes')} for memory")
    if said:
        yield Fact("memory", "; ".join(said))


def _of(used: int, most: int | None) -> str:
    if most is None:
        return f"{used / GIB:.1f} GiB"
    return f"{used / GIB:.1f} of {most / GIB:.1f} GiB ({100 * used / most:.0f}%)"


def _life(evidence: Evidence) -> Iterator[Fact]:
    """How long before the end the job last said anything."""
    last = evidence.ended_at or evidence.heartbeat_at
    said = []
    if evidence.started_at and last:
        said.append(f"ran {_duration(last - evidence.started_at)}")
    if evidence.last_output_at and last:
        said.append(f"last output {_duration(last - evidence.last_output_at)} before the end")
    if evidence.stop_detail:
        said.append(evidence.stop_detail)
    if said:
        yield Fact("life", ", ".join(said))


def _place(signature: Signature) -> str:
    rank = f", rank {signature.rank}" if signature.rank is not None else ""
    time = f", {signature.time.partition('.')[0]}" if signature.time else ""
    return f"{signature.file}:{signature.line}{rank}{time}"


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"
