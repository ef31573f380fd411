"""Runs that somebody else started: a folder with a log and NPZ files, nothing of which follows our names.

The log may be split over several files, the expected steps are known only if the log says them, and the scheduler's word
is there only if somebody saved it. An attempt folder of ours is recognised and read as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from orchestrator.collect import metrics
from orchestrator.collect.attempt import collect_attempt, merge_steps, step_places
from orchestrator.collect.card import card_of_pool
from orchestrator.collect.console import ConsoleFacts, parse_console
from orchestrator.collect.memory import read_memory
from orchestrator.collect.npz import read_npz
from orchestrator.collect.scheduler_text import SchedulerFacts, parse_runai_describe, parse_sacct
from orchestrator.collect.step_lines import training_steps
from orchestrator.errors import UsageError
from orchestrator.triage.evidence import MIB, Evidence
from trainer_ext import records

LOG_SUFFIXES = frozenset({".log", ".txt", ".out", ".err"})
DESCRIBE = "describe.txt"
SACCT = "sacct.txt"
_MAX_SCHEDULER_TEXT = 1 << 20


@dataclass(frozen=True)
class FoundFiles:
    """What lies in a foreign folder, each list by name."""

    logs: tuple[Path, ...] = ()
    npz: tuple[Path, ...] = ()
    metrics: tuple[Path, ...] = ()
    memory: tuple[Path, ...] = ()
    describe: Path | None = None
    sacct: Path | None = None


def collect_folder(path: Path, *, card_mib: int | None = None) -> Evidence:
    """Evidence of a run in `path` (a folder, or a log file alone).

    Args:
        card_mib: physical memory of one card of the pool it ran on; None: what its samples, its log or its scheduler name.

    Raises:
        UsageError: there is nothing to judge.
        OSError: a file cannot be read.
    """
    if (path / records.ATTEMPT).is_file():
        evidence = collect_attempt(path, backend_ended=True)
        return evidence if evidence.card_bytes or card_mib is None else replace(evidence, card_bytes=card_mib * MIB)
    files = find_files(path)
    folder = path if path.is_dir() else path.parent
    console = _read_logs(files.logs, folder)
    rows = _read_metrics(files.metrics, folder)
    steps = merge_steps(console.steps, rows.steps)
    scheduler = _read_scheduler(files)
    memory = read_memory(files.memory[0]) if files.memory else None
    named = console.card_mib or (card_of_pool(scheduler.pool) if scheduler.pool else None)
    sampled = memory.card if memory else None
    return Evidence(
        ended=not scheduler.live,
        expected_steps=console.total_steps,
        steps=training_steps(steps),
        npz=tuple(read_npz(file, file.relative_to(folder).as_posix()) for file in files.npz),
        exit_code=scheduler.exit_code,
        signal=scheduler.signal,
        scheduler_reason=scheduler.reason,
        oom_kills=memory.oom_kills if memory else None,
        signatures=console.signatures,
        log_lines=console.lines,
        log_truncated=console.truncated,
        metrics=steps,
        card_bytes=card_mib * MIB if card_mib else sampled or (named * MIB if named else None),
        gpu_peak_bytes=memory.gpu_peak if memory else None,
        host_peak_bytes=memory.host_peak if memory else None,
        host_limit_bytes=memory.host_limit if memory else None,
        restarted=console.restarted,
        step_lines={**console.places, **rows.places},
    )


def find_files(path: Path) -> FoundFiles:
    """Sort out what a folder holds.

    Raises:
        UsageError: `path` does not exist, or holds neither a log nor scores nor metrics.
    """
    if path.is_file():
        return FoundFiles(logs=(path,))
    if not path.is_dir():
        raise UsageError(f"{path} does not exist; give a folder with a log and NPZ files")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    named: Mapping[str, tuple[Path, ...]] = {
        name: tuple(file for file in files if file.name == name)
        for name in (records.METRICS, records.MEMORY, DESCRIBE, SACCT)
    }
    found = FoundFiles(
        logs=tuple(f for f in files if f.suffix in LOG_SUFFIXES and f.name not in (DESCRIBE, SACCT)),
        npz=tuple(file for file in files if file.suffix == ".npz"),
        metrics=named[records.METRICS],
        memory=named[records.MEMORY],
        describe=next(iter(named[DESCRIBE]), None),
        sacct=next(iter(named[SACCT]), None),
    )
    if not (found.logs or found.npz or found.metrics):
        suffixes = ", ".join(f"*{suffix}" for suffix in sorted(LOG_SUFFIXES))
        raise UsageError(f"{path} holds no run: no log ({suffixes}), no *.npz, no {records.METRICS}")
    return found


def _read_logs(logs: Iterable[Path], folder: Path) -> ConsoleFacts:
    """The facts of all logs as of one. Truncation and restarts count where the steps are."""
    every = [parse_console(log, name=log.relative_to(folder).as_posix(), find_card=True) for log in logs]
    with_steps = [facts for facts in every if facts.steps] or every
    steps: dict[int, dict[str, float]] = {}
    places: dict[int, str] = {}
    for facts in every:
        steps = merge_steps(steps, facts.steps)
        places |= facts.places
    return ConsoleFacts(
        steps=steps,
        signatures=tuple(signature for facts in every for signature in facts.signatures),
        lines=sum(facts.lines for facts in every),
        bytes=sum(facts.bytes for facts in every),
        truncated=any(facts.truncated for facts in with_steps),
        restarted=any(facts.restarted for facts in with_steps),
        total_steps=next((facts.total_steps for facts in (*with_steps, *every) if facts.total_steps), None),
        card_mib=next((facts.card_mib for facts in (*with_steps, *every) if facts.card_mib), None),
        places=places,
    )


class _Metrics(NamedTuple):
    """Of several files as of one."""

    steps: dict[int, dict[str, float]]
    places: dict[int, str]


def _read_metrics(files: Iterable[Path], folder: Path) -> _Metrics:
    steps: dict[int, dict[str, float]] = {}
    places: dict[int, str] = {}
    for file in files:
        rows = metrics.read_all(file)
        steps = merge_steps(steps, rows.metrics)
        places |= step_places(file.relative_to(folder).as_posix(), rows)
    return _Metrics(steps, places)


def _read_scheduler(files: FoundFiles) -> SchedulerFacts:
    if files.sacct is not None:
        facts = parse_sacct(_text(files.sacct))
        if facts.reason is not None:
            return facts
    return parse_runai_describe(_text(files.describe)) if files.describe is not None else SchedulerFacts()


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MAX_SCHEDULER_TEXT).decode("utf-8", "replace")
