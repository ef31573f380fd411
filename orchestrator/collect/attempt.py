"""Everything that an attempt folder of ours says, as one `Evidence`.

Any file may be missing or half-written: the node may have died at any moment. What cannot be read is simply not evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from orchestrator.collect import metrics
from orchestrator.collect.console import ConsoleFacts, parse_console
from orchestrator.collect.memory import read_memory
from orchestrator.collect.npz import read_npz
from orchestrator.collect.step_lines import training_steps
from orchestrator.paths import AttemptPaths
from orchestrator.triage.evidence import MIB, Evidence, NpzFacts
from orchestrator.triage.patterns import PatternBook
from reports.snapshot import HardwareSnapshot
from trainer_ext import records
from trainer_ext.records import AttemptSpec, Checkpoint, Claim, Heartbeat, Node, Outcome

_Record = TypeVar("_Record", AttemptSpec, Checkpoint, Claim, Heartbeat, Node, Outcome)

NO_CONSOLE = ConsoleFacts(steps={}, signatures=(), lines=0, bytes=0, truncated=False, restarted=False, total_steps=None)


def collect_attempt(
    folder: Path,
    *,
    backend_ended: bool,
    gone: bool = False,
    scheduler_reason: str | None = None,
    cancel_requested: bool = False,
    book: PatternBook | None = None,
) -> Evidence:
    """Read an attempt folder.

    Args:
        backend_ended: the backend says that the job is over, however it ended.
        gone: the backend knows no such job any more and saw no end.
        scheduler_reason: the scheduler's own word for the end.
        cancel_requested: we asked for the end.
        book: the signatures that the log is searched for; None: the built-in ones.

    Raises:
        OSError: a file exists but cannot be read (a broken mount says nothing about the job).
    """
    paths = AttemptPaths(folder)
    spec = read_record(AttemptSpec, paths.spec)
    outcome = read_record(Outcome, paths.outcome)
    heartbeat = read_record(Heartbeat, paths.heartbeat)
    checkpoint = read_record(Checkpoint, paths.checkpoint)
    claim = read_record(Claim, paths.claim)
    console = read_console(paths.console, book)
    memory = read_memory(paths.memory)
    rows = metrics.read_all(paths.metrics)
    steps = merge_steps(console.steps, rows.metrics)
    last = outcome or heartbeat
    card = spec.card_memory_mib * MIB if spec and spec.card_memory_mib else memory.card
    return Evidence(
        ended=outcome is not None or backend_ended or gone,
        expected_steps=spec.expected_steps if spec else None,
        steps=training_steps(steps),
        expected_npz=spec.expected_npz if spec else None,
        npz=_read_outputs(folder, spec.npz_glob if spec else None),
        exit_code=outcome.exit_code if outcome else None,
        signal=outcome.signal if outcome else None,
        outcome_seen=outcome is not None,
        phase=last.phase if last else None,
        stop_reason=outcome.stop_reason if outcome else None,
        stop_detail=outcome.stop_detail if outcome else None,
        start_error=outcome.error if outcome else None,
        cancel_requested=cancel_requested,
        scheduler_reason=scheduler_reason,
        gone=gone,
        oom_kills=outcome.oom_kills if outcome and outcome.oom_kills is not None else memory.oom_kills,
        signatures=console.signatures,
        log_lines=console.lines,
        log_truncated=console.truncated,
        metrics=steps,
        card_bytes=card,
        gpu_peak_bytes=memory.gpu_peak,
        host_peak_bytes=memory.host_peak,
        host_limit_bytes=memory.host_limit,
        resumed_after=checkpoint.resumed_after if checkpoint else 0,
        restarted=console.restarted,
        started_at=outcome.started_at if outcome else None,
        ended_at=outcome.ended_at if outcome else None,
        heartbeat_at=heartbeat.time if heartbeat else None,
        last_output_at=heartbeat.last_output_at if heartbeat else None,
        node=(claim.node or claim.host) if claim else None,
        hardware=read_hardware(paths.node),
        step_lines={**console.places, **step_places(records.METRICS, rows)},
    )


def read_hardware(path: Path) -> HardwareSnapshot | None:
    """What `node.json` says; None where there is none."""
    node = read_record(Node, path)
    if node is None:
        return None
    gpus = sorted(set(node.gpus))
    return HardwareSnapshot(
        gpu=", ".join(gpus) or None,
        gpus=len(node.gpus),
        driver=node.driver,
        image=node.image,
        packages_sha256=node.packages_sha256 or None,
    )


def step_places(name: str, rows: metrics.StepRows) -> dict[int, str]:
    """step -> `file:line` of a metrics file."""
    return {step: f"{name}:{line}" for step, line in rows.lines.items()}


def read_record(kind: type[_Record], path: Path) -> _Record | None:
    """A JSON file of the attempt folder, or None where it is missing, half-written or something else."""
    try:
        return kind.from_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


def read_console(path: Path, book: PatternBook | None = None) -> ConsoleFacts:
    """The facts of a log; of one that does not exist, none."""
    try:
        return parse_console(path, name=path.name, book=book)
    except FileNotFoundError:
        return NO_CONSOLE


def merge_steps(
    console: Mapping[int, Mapping[str, float]], rows: Mapping[int, Mapping[str, float]]
) -> dict[int, dict[str, float]]:
    """step -> metric -> value from both places; metrics.jsonl wins, for it has every digit."""
    return {step: {**console.get(step, {}), **rows.get(step, {})} for step in sorted({*console, *rows})}


def _read_outputs(folder: Path, pattern: str | None) -> tuple[NpzFacts, ...]:
    if not pattern:
        return ()
    return tuple(read_npz(path, path.relative_to(folder).as_posix()) for path in sorted(folder.glob(pattern)))
