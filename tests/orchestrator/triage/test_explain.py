"""The page of evidence: what is on it, what is left out, and that any evidence has one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given

from orchestrator.triage.evidence import GIB, Evidence, NpzFacts, Role, Signature
from orchestrator.triage.explain import Fact, explain
from tests.orchestrator.triage.test_verdict import EVIDENCE
from tests.orchestrator.triage.test_verdict import dead as dead_attempt

OOM = Signature(
    "cuda_oom",
    Role.ROOT,
    "gpu_oom",
    812,
    "torch.OutOfMemoryError: CUDA out of memory.",
    "solve.py:512 in _compute_kernel_solve",
    rank=3,
    time="11-21 10:03:11.000000",
)
NCCL = [
    Signature("nccl", Role.CASCADE, "node_failure", 640 + k, "Watchdog caught collective operation timeout", rank=k)
    for k in (0, 1, 2)
]


def dead(**changes: Any) -> Evidence:
    """Of an out-of-memory, with what followed from it."""
    return dead_attempt(**{"signatures": (*NCCL, OOM), "log_lines": 900, **changes})


def lines(facts: tuple[Fact, ...], depth: int = 0) -> list[str]:
    return [
        line for fact in facts for line in (f"{'  ' * depth}{fact.label}: {fact.text}", *lines(fact.below, depth + 1))
    ]


def test_the_deciding_line_comes_first_with_place_rank_and_time() -> None:
    assert lines(explain(dead()))[:4] == [
        "decided by: cuda_oom, the only cause that the log names",
        "  log: torch.OutOfMemoryError: CUDA out of memory.",
        "  at: console.log:812, rank 3, 11-21 10:03:11",
        "  in: solve.py:512 in _compute_kernel_solve",
    ]


def test_consequences_are_one_line_a_kind_with_their_ranks() -> None:
    page = lines(explain(dead()))
    assert "  3 × nccl: followed from something else, ranks 0, 1, 2; first at console.log:640, rank 0" in page


def test_what_the_job_got_over_is_told_from_what_counts() -> None:
    caught = replace(OOM, line=100, steps_after=2)
    page = lines(explain(dead(signatures=(caught, OOM))))
    assert any(line.startswith("  cuda_oom: the job got over it") for line in page)


def test_of_several_causes_the_earliest_is_said_to_be_it() -> None:
    later = replace(OOM, line=900, time=None, rank=5)
    assert "the earliest of 2 that count" in lines(explain(dead(signatures=(OOM, later))))[0]


def test_what_is_missing_is_listed_below_the_work() -> None:
    page = lines(explain(dead()))
    at = page.index("work: steps: 1 of 2 steps; score files: 1 of 2 valid")
    assert page[at + 1 : at + 3] == ["  lacks: step 2 of 2 not logged", "  lacks: 1 score file missing"]


def test_a_kill_is_no_proof_of_too_little_memory() -> None:
    page = lines(explain(dead(signatures=(), exit_code=None, signal=9, oom_kills=0)))
    assert "  note: SIGKILL alone is no proof of too little memory: the kernel counted no kill" in page
    counted = lines(explain(dead(signatures=(), exit_code=None, signal=9, oom_kills=1)))
    assert not any("no proof" in line for line in counted)


def test_memory_is_shown_as_a_share_of_what_there_is() -> None:
    evidence = dead(
        card_bytes=80 * GIB, gpu_peak_bytes=60 * GIB, host_peak_bytes=10 * GIB, host_limit_bytes=40 * GIB, oom_kills=0
    )
    (memory,) = [line for line in lines(explain(evidence)) if line.startswith("memory:")]
    assert "GPU 60.0 of 80.0 GiB (75%) at most (NVML)" in memory
    assert "host 10.0 of 40.0 GiB (25%) at most" in memory


def test_silence_before_the_end_is_measured() -> None:
    evidence = dead(started_at=1000.0, ended_at=4600.0, last_output_at=3700.0)
    assert "life: ran 1 h 00 min, last output 15 min 00 s before the end" in lines(explain(evidence))


def test_a_finished_run_needs_few_lines() -> None:
    files = tuple(NpzFacts(f"influence/step_{step:06d}.npz", step) for step in (1, 2))
    page = lines(explain(dead(exit_code=0, steps=(1, 2), npz=files, signatures=(), log_lines=0)))
    assert page == ["work: steps: 2 of 2 steps; score files: 2 of 2 valid", "end: exit code 0, in phase run"]


@given(EVIDENCE)
def test_every_evidence_fits_a_page(evidence: Evidence) -> None:
    page = lines(explain(evidence))
    assert 0 < len(page) <= 40
    assert all("\n" not in line for line in page) or any("\n" in one.text for one in evidence.signatures)
