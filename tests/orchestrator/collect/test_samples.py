"""What verl prints of the model's own words is nobody's failure, and hides nobody else's."""

from __future__ import annotations

import io

from orchestrator.collect.console import parse_console
from orchestrator.collect.samples import MAX_LINES

RAY = "\x1b[36m(TaskRunner pid=7011)\x1b[0m "
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
SAMPLE = ["[prompt] why?", "[response] you see", OOM, "Traceback (most recent call last):", "ValueError: no"]


def codes(*lines: str) -> list[str]:
    facts = parse_console(io.BytesIO(("\n".join(lines) + "\n").encode()))
    return [signature.code for signature in facts.signatures]


def test_a_failure_in_a_sample_is_no_evidence() -> None:
    assert codes(*(RAY + line for line in SAMPLE), RAY + "[ground_truth] 4", RAY + "[score] 0.0") == []
    assert codes(*SAMPLE, "[ground_truth] 4") == []


def test_the_same_process_is_heard_again_after_the_sample() -> None:
    assert codes(*(RAY + line for line in SAMPLE), RAY + "[ground_truth] 4", RAY + OOM) == ["cuda_oom"]


def test_other_processes_are_heard_all_the_time() -> None:
    other = "\x1b[36m(WorkerDict pid=4121)\x1b[0m "
    assert codes(*(RAY + line for line in SAMPLE), other + OOM) == ["cuda_oom"]
    assert codes(*SAMPLE, other + OOM) == ["cuda_oom"]


def test_a_sample_without_an_end_is_given_up() -> None:
    assert codes(SAMPLE[0], *["word"] * MAX_LINES, OOM) == ["cuda_oom"]


def test_an_end_without_a_beginning_means_nothing() -> None:
    assert codes("[ground_truth] 4", OOM) == ["cuda_oom"]
