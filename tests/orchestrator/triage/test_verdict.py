"""The table of verdicts: properties that hold for every evidence, and each rule once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model import Verdict
from orchestrator.triage.evidence import PLAIN_EXCEPTION, Evidence, NpzFacts, Role, Signature
from orchestrator.triage.verdict import judge

WORDS = [None, "COMPLETED", "FAILED", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "TIMEOUT", "CANCELLED by 0", "???"]
VERDICTS = st.sampled_from([None, *(verdict.value for verdict in Verdict)])


def signature(code: str, role: Role, verdict: str | None, line: int = 1, text: str = "boom", **more: Any) -> Signature:
    return Signature(code, role, verdict, line, text, **more)


def oom(line: int = 5) -> Signature:
    return signature("cuda_oom", Role.ROOT, "gpu_oom", line, "torch.OutOfMemoryError: CUDA out of memory.")


def nccl(line: int = 3) -> Signature:
    return signature("nccl", Role.CASCADE, "node_failure", line, "Watchdog caught collective operation timeout")


def exception(line: int = 4, text: str = "ValueError: 3", **more: Any) -> Signature:
    return signature(PLAIN_EXCEPTION, Role.ROOT, "code_error", line, text, **more)


SIGNATURES = st.lists(
    st.builds(
        Signature,
        code=st.sampled_from(["cuda_oom", PLAIN_EXCEPTION, "nccl", "x"]),
        role=st.sampled_from(Role),
        verdict=VERDICTS,
        line=st.integers(1, 99),
        text=st.text(max_size=300),
        where=st.none() | st.just("a.py:3 in f"),
        steps_after=st.integers(0, 3),
    ),
    max_size=5,
).map(lambda found: tuple(sorted(found, key=lambda one: one.line)))
NPZ = st.lists(
    st.builds(
        NpzFacts,
        file=st.just("step_1.npz"),
        step=st.none() | st.integers(0, 4),
        error=st.none() | st.just("BadZipFile"),
    ),
    max_size=3,
).map(tuple)
EVIDENCE = st.builds(
    Evidence,
    ended=st.booleans(),
    expected_steps=st.none() | st.integers(0, 3),
    steps=st.sets(st.integers(1, 4)).map(sorted).map(tuple),
    expected_npz=st.none() | st.integers(0, 3),
    npz=NPZ,
    exit_code=st.sampled_from([None, 0, 1, 2, 137, 143, 255]),
    signal=st.sampled_from([None, 0, 6, 9, 11, 15, 99]),
    outcome_seen=st.booleans(),
    phase=st.sampled_from([None, "prepare", "run", "finish"]),
    stop_reason=st.sampled_from([None, "terminated", "time_limit", "warned", "hang", "?"]),
    start_error=st.none() | st.just("no such file: python4"),
    cancel_requested=st.booleans(),
    scheduler_reason=st.sampled_from(WORDS),
    gone=st.booleans(),
    oom_kills=st.sampled_from([None, 0, 2]),
    signatures=SIGNATURES,
    log_truncated=st.booleans(),
    restarted=st.booleans(),
)


def dead(**changes: Any) -> Evidence:
    """An attempt that did one of two steps and ended with exit code 1."""
    fields: dict[str, Any] = {
        "ended": True,
        "outcome_seen": True,
        "exit_code": 1,
        "phase": "run",
        "expected_steps": 2,
        "steps": (1,),
        "expected_npz": 2,
        "npz": (NpzFacts("influence/step_000001.npz", 1),),
        **changes,
    }
    return Evidence(**fields)


def whole(**changes: Any) -> Evidence:
    files = tuple(NpzFacts(f"influence/step_{step:06d}.npz", step) for step in (1, 2))
    return replace(dead(steps=(1, 2), npz=files), **changes)


@given(EVIDENCE)
def test_every_evidence_has_a_verdict_with_a_sentence(evidence: Evidence) -> None:
    judgement = judge(evidence)
    assert judgement.reason
    assert "\n" not in judgement.reason or any("\n" in one.text for one in evidence.signatures)
    assert judgement.fingerprint is None or judgement.verdict in (Verdict.CODE_ERROR, Verdict.CONFIG_ERROR)


@given(EVIDENCE)
def test_all_steps_and_valid_files_are_completed_whatever_the_end(evidence: Evidence) -> None:
    done = replace(evidence, expected_steps=2, steps=(1, 2), expected_npz=1, npz=(NpzFacts("step_1.npz", 1),))
    assert judge(done).verdict is Verdict.COMPLETED


@given(EVIDENCE)
def test_a_missing_step_or_a_bad_file_is_never_completed(evidence: Evidence) -> None:
    assert judge(replace(evidence, expected_steps=3, steps=(1, 3))).verdict is not Verdict.COMPLETED
    broken = (NpzFacts("step_1.npz", 1, error="BadZipFile"),)
    assert judge(replace(evidence, npz=broken)).verdict is not Verdict.COMPLETED


@given(EVIDENCE)
def test_cascades_and_confirmations_alone_are_never_an_out_of_memory_error(evidence: Evidence) -> None:
    without_roots = tuple(one for one in evidence.signatures if one.role is not Role.ROOT)
    verdict = judge(replace(evidence, signatures=without_roots)).verdict
    assert verdict is not Verdict.GPU_OOM
    if not evidence.oom_kills and evidence.scheduler_reason != "OUT_OF_MEMORY":
        assert verdict is not Verdict.HOST_OOM


@given(EVIDENCE)
def test_no_exit_code_is_out_of_memory(evidence: Evidence) -> None:
    bare = replace(evidence, signatures=(), oom_kills=None, scheduler_reason=None)
    assert judge(bare).verdict not in (Verdict.GPU_OOM, Verdict.HOST_OOM)


@given(EVIDENCE, st.integers(0, 3))
def test_what_follows_the_root_does_not_change_it(evidence: Evidence, cascades: int) -> None:
    root_first = replace(evidence, signatures=(oom(1), *(nccl(2 + k) for k in range(cascades))))
    root_alone = replace(evidence, signatures=(oom(1),))
    assert judge(root_first).verdict is judge(root_alone).verdict


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"cancel_requested": True}, Verdict.CANCELLED),
        ({"scheduler_reason": "CANCELLED by 1000"}, Verdict.CANCELLED),
        ({"scheduler_reason": "PREEMPTED"}, Verdict.PREEMPTED),
        ({"scheduler_reason": "NODE_FAIL", "signatures": (oom(),)}, Verdict.NODE_FAILURE),
        ({"oom_kills": 1}, Verdict.HOST_OOM),
        ({"scheduler_reason": "OUT_OF_MEMORY"}, Verdict.HOST_OOM),
        ({"signatures": (oom(),)}, Verdict.GPU_OOM),
        ({"signatures": (nccl(1), exception(2), oom(3))}, Verdict.GPU_OOM),
        ({"signatures": (oom(),), "exit_code": 0}, Verdict.GPU_OOM),
        ({"signatures": (oom(),), "stop_reason": "time_limit"}, Verdict.GPU_OOM),
        ({"signatures": (oom(),), "gone": True, "outcome_seen": False, "exit_code": None}, Verdict.GPU_OOM),
        ({"stop_reason": "time_limit"}, Verdict.TIME_LIMIT),
        ({"scheduler_reason": "TIMEOUT", "signatures": (exception(),)}, Verdict.TIME_LIMIT),
        ({"stop_reason": "hang"}, Verdict.HANG),
        ({"stop_reason": "warned", "exit_code": 0}, Verdict.PREEMPTED),
        ({"stop_reason": "warned", "exit_code": 1, "signatures": (exception(),)}, Verdict.CODE_ERROR),
        ({"stop_reason": "warned", "exit_code": 0, "scheduler_reason": "TIMEOUT"}, Verdict.TIME_LIMIT),
        ({"stop_reason": "hang", "cancel_requested": True}, Verdict.HANG),
        ({"start_error": "no such file: python4", "exit_code": None}, Verdict.CONFIG_ERROR),
        ({"signatures": (exception(),)}, Verdict.CODE_ERROR),
        ({"signatures": (nccl(1), exception(2))}, Verdict.CODE_ERROR),
        ({"signal": 11, "exit_code": None}, Verdict.CODE_ERROR),
        ({"gone": True, "outcome_seen": False, "exit_code": None}, Verdict.NODE_FAILURE),
        ({"gone": True, "outcome_seen": False, "signatures": (exception(),)}, Verdict.NODE_FAILURE),
        ({"stop_reason": "terminated", "signatures": (exception(),)}, Verdict.NODE_FAILURE),
        ({"phase": "prepare"}, Verdict.CONFIG_ERROR),
        ({"phase": "prepare", "signatures": (exception(),)}, Verdict.CODE_ERROR),
        ({"signatures": (nccl(),)}, Verdict.NODE_FAILURE),
        ({"exit_code": 0}, Verdict.MISSING_OUTPUT),
        ({"exit_code": 0, "signatures": (exception(),)}, Verdict.MISSING_OUTPUT),
        ({"steps": (1, 2)}, Verdict.MISSING_OUTPUT),
        ({"steps": (1, 2), "signatures": (exception(),)}, Verdict.CODE_ERROR),
        ({"exit_code": 137}, Verdict.UNKNOWN),
        ({"exit_code": None, "signal": 9}, Verdict.UNKNOWN),
        ({}, Verdict.UNKNOWN),
        ({"ended": False, "outcome_seen": False, "exit_code": None}, Verdict.UNKNOWN),
    ],
)
def test_each_end_has_its_verdict(changes: dict[str, Any], verdict: Verdict) -> None:
    assert judge(dead(**changes)).verdict is verdict


def test_the_reason_of_completion_tells_of_a_bad_end() -> None:
    assert judge(whole(exit_code=0)).reason == "all 2 steps done, 2 score files valid"
    assert judge(whole(exit_code=None, signal=6)).reason.endswith("; it ended with SIGABRT nevertheless")


def test_facts_say_where_they_stand() -> None:
    judgement = judge(dead(signatures=(nccl(), oom(812))))
    assert judgement.evidence[-1] == "console.log:812: torch.OutOfMemoryError: CUDA out of memory."
    assert "steps: 1 of 2 steps" in judgement.evidence


def test_a_lone_kill_says_that_its_sender_is_unknown() -> None:
    assert judge(dead(exit_code=None, signal=9)).reason == "ended with SIGKILL; nothing says who sent SIGKILL, or why"


def test_missing_output_says_what_is_missing() -> None:
    broken = (NpzFacts("influence/step_000001.npz", 1, error="BadZipFile: cut"),)
    reason = judge(dead(exit_code=0, npz=broken)).reason
    assert reason == (
        "the job ended with exit code 0, but step 2 of 2 not logged, 1 score file missing, "
        "1 score file unreadable (influence/step_000001.npz: BadZipFile: cut)"
    )


def test_a_run_of_unknown_length_needs_success_or_silence() -> None:
    unknown = whole(expected_steps=None, expected_npz=None, outcome_seen=False, exit_code=None)
    assert judge(unknown).verdict is Verdict.COMPLETED
    assert judge(replace(unknown, scheduler_reason="FAILED")).verdict is Verdict.COMPLETED
    assert judge(replace(unknown, log_truncated=True)).verdict is Verdict.UNKNOWN
    assert judge(replace(unknown, exit_code=137)).verdict is Verdict.UNKNOWN
    assert judge(replace(unknown, signatures=(exception(),))).verdict is Verdict.CODE_ERROR
    assert judge(replace(unknown, outcome_seen=True, exit_code=1)).verdict is not Verdict.COMPLETED


def test_a_job_without_steps_is_completed_by_its_exit_code() -> None:
    plain = Evidence(ended=True, outcome_seen=True, exit_code=0)
    assert judge(plain).verdict is Verdict.COMPLETED
    assert judge(replace(plain, exit_code=1)).verdict is Verdict.UNKNOWN


def test_same_failures_have_the_same_fingerprint() -> None:
    one = exception(text="(WorkerDict pid=1) KeyError: /a/b/c.py at 0x7f01, 3 rows", where="a.py:3 in f")
    two = exception(90, text="(WorkerDict pid=77) KeyError: /x/y at 0x99, 12 rows", where="a.py:8 in f")
    prints = {judge(dead(signatures=(found,))).fingerprint for found in (one, two)}
    assert len(prints) == 1
    assert None not in prints


@pytest.mark.parametrize(
    "other",
    [exception(text="KeyError: 'rows'", where="a.py:3 in f"), exception(text="ValueError: 3", where="a.py:3 in g")],
)
def test_other_failures_have_another_fingerprint(other: Signature) -> None:
    one = exception(text="ValueError: 3", where="a.py:3 in f")
    assert judge(dead(signatures=(one,))).fingerprint != judge(dead(signatures=(other,))).fingerprint
