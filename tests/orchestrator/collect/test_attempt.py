"""Attempt folders: whole ones, half-written ones, empty ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.collect.attempt import collect_attempt
from orchestrator.model import Verdict
from orchestrator.paths import AttemptPaths
from orchestrator.triage.evidence import MIB
from orchestrator.triage.verdict import judge
from trainer_ext.records import AttemptSpec, Checkpoint, Heartbeat, MemorySample, Outcome, npz_name
from trainer_ext.writer import ScoredResponse, write_step

RESPONSES = [
    ScoredResponse(np.arange(3), np.array([1.0, 2.0, 3.0]), np.ones(3, bool), True, 1.0, "a"),
    ScoredResponse(np.arange(2), np.array([4.0, 9.0]), np.ones(2, bool), False, -1.0, "a"),
]


def write_spec(paths: AttemptPaths, **changes: Any) -> None:
    fields: dict[str, Any] = {
        "token": "t",
        "sweep": "s",
        "point": "p",
        "point_hash": "h",
        "attempt": 1,
        "job_name": "j",
        "expected_steps": 2,
        "expected_npz": 2,
        "npz_glob": "influence/step_*.npz",
        "card_memory_mib": 143_771,
        **changes,
    }
    paths.spec.write_text(AttemptSpec(**fields).to_json())


def write_outcome(paths: AttemptPaths, **changes: Any) -> None:
    fields: dict[str, Any] = {
        "token": "t",
        "exit_code": 0,
        "signal": None,
        "started_at": 10.0,
        "ended_at": 20.0,
        "phase": "run",
        **changes,
    }
    paths.outcome.write_text(Outcome(**fields).to_json())


def write_whole(folder: Path, **outcome: Any) -> AttemptPaths:
    paths = AttemptPaths(folder)
    write_spec(paths)
    paths.console.write_text("step:1 - actor/loss:0.5 - only/console:1\nstep:2 - actor/loss:0.25\n")
    rows = [{"step": step, "data": {"actor/loss": 0.5 / step, "timing_s/step": 3.0}} for step in (1, 2)]
    paths.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths.memory.write_text(MemorySample(time=1, gpu_used=[7], process_pss=3, oom_kill=0).to_json() + "\n")
    for step in (1, 2):
        write_step(paths.influence, step, RESPONSES, {})
    write_outcome(paths, **outcome)
    return paths


def test_a_whole_folder_says_everything(tmp_path: Path) -> None:
    write_whole(tmp_path, exit_code=1, oom_kills=0)
    evidence = collect_attempt(tmp_path, backend_ended=False)
    assert evidence.ended
    assert evidence.outcome_seen
    assert (evidence.expected_steps, evidence.steps, evidence.exit_code) == (2, (1, 2), 1)
    assert [file.file for file in evidence.npz] == [f"influence/{npz_name(1)}", f"influence/{npz_name(2)}"]
    assert evidence.npz[0].valid == 5
    assert evidence.metrics[1] == {"actor/loss": 0.5, "only/console": 1.0, "timing_s/step": 3.0}
    assert (evidence.card_bytes, evidence.gpu_peak_bytes, evidence.host_peak_bytes) == (143_771 * MIB, 7, 3)
    assert (evidence.started_at, evidence.ended_at, evidence.phase) == (10.0, 20.0, "run")
    assert judge(evidence).verdict is Verdict.COMPLETED


def test_an_empty_folder_is_evidence_of_nothing(tmp_path: Path) -> None:
    evidence = collect_attempt(
        tmp_path, backend_ended=True, gone=True, scheduler_reason="NODE_FAIL", cancel_requested=True
    )
    assert (evidence.ended, evidence.gone, evidence.outcome_seen) == (True, True, False)
    assert (evidence.scheduler_reason, evidence.cancel_requested) == ("NODE_FAIL", True)
    assert (evidence.steps, evidence.npz, evidence.log_lines, evidence.expected_steps) == ((), (), 0, None)


def test_a_folder_that_does_not_exist_is_evidence_of_nothing(tmp_path: Path) -> None:
    assert not collect_attempt(tmp_path / "none", backend_ended=False).ended


def test_half_written_files_are_no_evidence_and_no_error(tmp_path: Path) -> None:
    paths = write_whole(tmp_path)
    for path in (paths.spec, paths.outcome):
        path.write_bytes(path.read_bytes()[:20])
    paths.heartbeat.write_text(Heartbeat(time=1.0, phase="run", step=1, console_bytes=3, last_output_at=None).to_json())
    evidence = collect_attempt(tmp_path, backend_ended=True)
    assert not evidence.outcome_seen
    assert evidence.exit_code is None
    assert evidence.phase == "run"
    assert evidence.steps == (1, 2)


def test_the_last_step_counts_where_only_the_console_has_it(tmp_path: Path) -> None:
    paths = write_whole(tmp_path)
    paths.metrics.write_bytes(paths.metrics.read_bytes()[:-20])
    assert collect_attempt(tmp_path, backend_ended=True).steps == (1, 2)


def test_kills_are_known_from_memory_samples_when_the_wrapper_died_too(tmp_path: Path) -> None:
    paths = write_whole(tmp_path)
    paths.outcome.unlink()
    for step in (1, 2):
        (paths.influence / npz_name(step)).unlink()
    paths.memory.write_text(MemorySample(time=1, oom_kill=2).to_json() + "\n")
    evidence = collect_attempt(tmp_path, backend_ended=True, gone=True)
    assert evidence.oom_kills == 2
    assert judge(evidence).verdict is Verdict.HOST_OOM


def test_a_resumed_attempt_is_whole_by_itself_and_says_where_it_took_up(tmp_path: Path) -> None:
    paths = write_whole(tmp_path)
    paths.console.write_text("step:2 - actor/loss:0.25\n")
    paths.checkpoint.write_text(Checkpoint(resumed_after=1, saved_after=2).to_json())
    evidence = collect_attempt(tmp_path, backend_ended=True)
    assert (evidence.steps, evidence.resumed_after, len(evidence.npz)) == ((1, 2), 1, 2)
    assert judge(evidence).verdict is Verdict.COMPLETED


@given(
    st.sampled_from(
        [
            "attempt.json",
            "outcome.json",
            "heartbeat.json",
            "metrics.jsonl",
            "memory.jsonl",
            "console.log",
            "checkpoint.json",
        ]
    ),
    st.one_of(st.binary(max_size=60), st.sampled_from([b"[]", b"null", b'{"token": 1}', b"{}" * 3])),
)
@settings(max_examples=60, deadline=None)
def test_no_content_of_any_file_raises(tmp_path_factory: Any, name: str, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("attempt")
    write_whole(folder)
    (folder / name).write_bytes(content)
    judge(collect_attempt(folder, backend_ended=True))
